import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';

import { readSpecs, type ISpec } from './answers';
import { isRecord } from './model';
import { Choice, Failure, Field, Hint, TextButton, TextField, useAction, useAnswer } from './parts';
import type { ISectionProps } from './sections';

type Way = 'here' | 'address' | 'class' | `spec:${string}`;

interface IFields {
  name: string;
  nodes: string;
  address: string;
  ca: string;
  cert: string;
  key: string;
  cluster_class: string;
  options: string;
}

const NO_FIELDS: IFields = {
  name: '',
  nodes: '1',
  address: '',
  ca: '',
  cert: '',
  key: '',
  cluster_class: 'dask.distributed.LocalCluster',
  options: '{"n_workers": 2}'
};

/** Ways to start a cluster without code. It starts in a process of its own; its card shows how that goes. */
export function StartForm(props: {
  send: ISectionProps['send'];
  trans: TranslationBundle;
  close: () => void;
}): React.JSX.Element {
  const { send, trans, close } = props;
  const action = useAction();
  const specs = useAnswer(async () => readSpecs(await send('GET', ['specs'])), 'specs');
  const [way, setWay] = React.useState<Way>('here');
  const [fields, setFields] = React.useState(NO_FIELDS);
  const named = specs.value?.find(spec => way === `spec:${spec.name}`);
  const set = (change: Partial<IFields>): void => {
    setFields(old => ({ ...old, ...change }));
  };
  const field = (
    name: keyof IFields,
    label: string,
    more: { optional?: boolean; placeholder?: string; least?: number }
  ): React.JSX.Element => (
    <TextField
      label={label}
      value={fields[name]}
      change={value => {
        set({ [name]: value });
      }}
      {...more}
    />
  );
  return (
    <form
      className="shoal-Form"
      aria-label={trans.__('Start a cluster')}
      onSubmit={event => {
        event.preventDefault();
        action.run(async () => {
          const spec = named ? named.name : makeSpec(way, fields, trans);
          await send('POST', ['clusters'], fields.name ? { spec, name: fields.name } : { spec });
          close();
        });
      }}
    >
      <Choice
        label={trans.__('Where')}
        value={way}
        options={[
          ['here', trans.__('on this machine')],
          ...(specs.value ?? []).map(
            spec => [`spec:${spec.name}`, trans.__('spec “%1”', spec.name)] as const
          ),
          ['address', trans.__('a Dask cluster that runs, by its address')],
          ['class', trans.__('a new Dask cluster, by its class')]
        ]}
        change={value => {
          setWay(value as Way);
          action.clear();
        }}
      />
      {field('name', trans.__('Name'), { optional: true })}
      {way === 'here' && field('nodes', trans.__('Nodes'), { least: 1 })}
      {way === 'address' && (
        <>
          {field('address', trans.__('Address'), { placeholder: 'tls://10.0.0.4:8786' })}
          <Hint>{trans.__('With TLS: paths of three files on the machine of the Jupyter server.')}</Hint>
          {field('ca', trans.__('CA'), { optional: true })}
          {field('cert', trans.__('Certificate'), { optional: true })}
          {field('key', trans.__('Key'), { optional: true })}
        </>
      )}
      {way === 'class' && (
        <>
          {field('cluster_class', trans.__('Class'), {})}
          <Field label={trans.__('Options, as JSON')}>
            {id => (
              <textarea
                id={id}
                className="jp-mod-styled"
                rows={4}
                spellCheck={false}
                value={fields.options}
                onChange={event => {
                  set({ options: event.target.value });
                }}
              />
            )}
          </Field>
        </>
      )}
      {named && <SpecNote spec={named} trans={trans} />}
      <div className="shoal-Buttons">
        <button
          type="submit"
          className="jp-Button jp-mod-styled jp-mod-accept shoal-Button"
          disabled={action.busy || (named?.problem ?? '') !== ''}
        >
          {action.busy ? trans.__('Working…') : trans.__('Start')}
        </button>
        <TextButton onClick={close}>{trans.__('Close')}</TextButton>
      </div>
      <Failure action={action} />
    </form>
  );
}

function SpecNote({ spec, trans }: { spec: ISpec; trans: TranslationBundle }): React.JSX.Element | null {
  if (spec.problem) {
    return (
      <p className="shoal-Failure" role="alert">
        {spec.problem}
      </p>
    );
  }
  return spec.what ? <Hint>{trans.__('It starts: %1', spec.what)}</Hint> : null;
}

/** The spec that the form describes, see `shoal/launch/specs.py`; raises `Error` with words for the user. */
function makeSpec(way: Way, fields: IFields, trans: TranslationBundle): object {
  switch (way) {
    case 'address': {
      const { address, ca, cert, key } = fields;
      const given = [ca, cert, key].filter(Boolean).length;
      if (given !== 0 && given !== 3) {
        throw new Error(trans.__('TLS needs all three files: CA, certificate and key.'));
      }
      return given === 3 ? { address, tls: { ca, cert, key } } : { address };
    }
    case 'class': {
      let options: unknown;
      try {
        options = JSON.parse(fields.options.trim() || '{}');
      } catch (reason) {
        throw new Error(trans.__('The options are no JSON: %1', reason instanceof Error ? reason.message : ''));
      }
      if (!isRecord(options)) {
        throw new Error(trans.__('The options are to be a JSON object, such as {"n_workers": 2}.'));
      }
      return { cluster_class: fields.cluster_class, options };
    }
    default:
      return { nodes: Number(fields.nodes) };
  }
}
