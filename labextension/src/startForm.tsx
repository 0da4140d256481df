import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';

import { readSpecs, type ISpec } from './answers';
import { isRecord } from './model';
import { Failure, Hint, TextButton, useAction, useAnswer } from './parts';
import { NumberField } from './scaleForm';
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
      <label className="shoal-Field">
        <span>{trans.__('Where')}</span>
        <select
          className="jp-mod-styled"
          autoFocus
          value={way}
          onChange={event => {
            setWay(event.target.value as Way);
            action.clear();
          }}
        >
          <option value="here">{trans.__('on this machine')}</option>
          {specs.value?.map(spec => (
            <option key={spec.name} value={`spec:${spec.name}`}>
              {trans.__('spec “%1”', spec.name)}
            </option>
          ))}
          <option value="address">{trans.__('a Dask cluster that runs, by its address')}</option>
          <option value="class">{trans.__('a new Dask cluster, by its class')}</option>
        </select>
      </label>
      <TextField label={trans.__('Name')} value={fields.name} change={name => { set({ name }); }} optional />
      {way === 'here' && (
        <NumberField
          label={trans.__('Nodes')}
          value={fields.nodes}
          change={nodes => {
            set({ nodes });
          }}
          least={1}
        />
      )}
      {way === 'address' && <AddressFields fields={fields} set={set} trans={trans} />}
      {way === 'class' && (
        <>
          <TextField
            label={trans.__('Class')}
            value={fields.cluster_class}
            change={cluster_class => { set({ cluster_class }); }}
          />
          <label className="shoal-Field">
            <span>{trans.__('Options, as JSON')}</span>
            <textarea
              className="jp-mod-styled"
              rows={4}
              spellCheck={false}
              value={fields.options}
              onChange={event => {
                set({ options: event.target.value });
              }}
            />
          </label>
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

function AddressFields(props: {
  fields: IFields;
  set: (change: Partial<IFields>) => void;
  trans: TranslationBundle;
}): React.JSX.Element {
  const { fields, set, trans } = props;
  return (
    <>
      <TextField
        label={trans.__('Address')}
        value={fields.address}
        placeholder="tls://10.0.0.4:8786"
        change={address => { set({ address }); }}
      />
      <Hint>{trans.__('With TLS: paths of three files on the machine of the Jupyter server.')}</Hint>
      <TextField label={trans.__('CA')} value={fields.ca} change={ca => { set({ ca }); }} optional />
      <TextField label={trans.__('Certificate')} value={fields.cert} change={cert => { set({ cert }); }} optional />
      <TextField label={trans.__('Key')} value={fields.key} change={key => { set({ key }); }} optional />
    </>
  );
}

function TextField(props: {
  label: string;
  value: string;
  change: (value: string) => void;
  placeholder?: string;
  optional?: boolean;
}): React.JSX.Element {
  return (
    <label className="shoal-Field">
      <span>{props.label}</span>
      <input
        type="text"
        className="jp-mod-styled"
        spellCheck={false}
        required={!props.optional}
        placeholder={props.placeholder}
        value={props.value}
        onChange={event => {
          props.change(event.target.value);
        }}
      />
    </label>
  );
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
