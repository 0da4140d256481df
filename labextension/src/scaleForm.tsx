import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';

import { isRecord, type ICluster } from './model';
import { Check, Choice, Failure, TextButton, TextField, useAction } from './parts';
import type { ISectionProps } from './sections';

/** How many nodes a cluster has, or may have, and when it stops by itself. */
export function ScaleForm(props: {
  cluster: ICluster;
  send: ISectionProps['send'];
  trans: TranslationBundle;
  close: () => void;
}): React.JSX.Element {
  const { cluster, send, trans, close } = props;
  const action = useAction();
  const now = cluster.snapshot?.nodes.length ?? 1;
  const [mode, setMode] = React.useState('fixed');
  const [nodes, setNodes] = React.useState(String(now));
  const [most, setMost] = React.useState(String(Math.max(1, now)));
  const [minutes, setMinutes] = React.useState('60');
  const [force, setForce] = React.useState(false);
  const [reasons, setReasons] = React.useState<readonly string[]>([]);
  const apply = async (): Promise<void> => {
    const body =
      mode === 'fixed'
        ? { nodes: Number(nodes), force }
        : mode === 'adaptive'
          ? { adaptive: { minimum: Number(nodes), maximum: Number(most) } }
          : { idle_stop: 60 * Number(minutes) };
    const answer = await send('PATCH', ['clusters', cluster.id], body);
    const kept = isRecord(answer) && Array.isArray(answer.kept) ? answer.kept.filter(isRecord) : [];
    if (kept.length > 0) {
      setReasons(kept.map(one => trans.__('%1 stays: %2', String(one.node), String(one.why))));
    } else {
      close();
    }
  };
  return (
    <form
      className="shoal-Form"
      aria-label={trans.__('Scale')}
      onSubmit={event => {
        event.preventDefault();
        action.run(apply);
      }}
    >
      <Choice
        label={trans.__('Change')}
        value={mode}
        options={[
          ['fixed', trans.__('number of nodes')],
          // only what keeps a cluster without a driver can do the rest
          ...(cluster.kind === 'detached'
            ? [
                ['adaptive', trans.__('adaptive: as many nodes as needed')] as const,
                ['idle', trans.__('stop when idle')] as const
              ]
            : [])
        ]}
        change={value => {
          setMode(value);
          action.clear();
        }}
      />
      {mode === 'fixed' && (
        <>
          <TextField label={trans.__('Nodes')} value={nodes} change={setNodes} least={0} />
          <Check
            label={trans.__('Do not wait for what runs on nodes that go')}
            checked={force}
            change={setForce}
          />
        </>
      )}
      {mode === 'adaptive' && (
        <>
          <TextField label={trans.__('At least')} value={nodes} change={setNodes} least={0} />
          <TextField label={trans.__('At most')} value={most} change={setMost} least={1} />
        </>
      )}
      {mode === 'idle' && (
        <TextField
          label={trans.__('Minutes without work (0: never)')}
          value={minutes}
          change={setMinutes}
          least={0}
        />
      )}
      <div className="shoal-Buttons">
        <button type="submit" className="jp-Button jp-mod-styled jp-mod-accept shoal-Button" disabled={action.busy}>
          {action.busy ? trans.__('Working…') : trans.__('Apply')}
        </button>
        <TextButton onClick={close}>{trans.__('Close')}</TextButton>
      </div>
      <Failure action={action} />
      {reasons.length > 0 && (
        <ul className="shoal-Note" role="status">
          {reasons.map(reason => (
            <li key={reason}>{reason}</li>
          ))}
        </ul>
      )}
    </form>
  );
}
