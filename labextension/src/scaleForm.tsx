import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';

import type { ICluster } from './model';
import { Failure, TextButton, useAction } from './parts';
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
  const apply = async (): Promise<void> => {
    const body =
      mode === 'fixed'
        ? { nodes: Number(nodes), force }
        : mode === 'adaptive'
          ? { adaptive: { minimum: Number(nodes), maximum: Number(most) } }
          : { idle_stop: 60 * Number(minutes) };
    await send('PATCH', ['clusters', cluster.id], body);
    close();
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
      <label className="shoal-Field">
        <span>{trans.__('Change')}</span>
        <select
          className="jp-mod-styled"
          value={mode}
          onChange={event => {
            setMode(event.target.value);
            action.clear();
          }}
        >
          <option value="fixed">{trans.__('number of nodes')}</option>
          <option value="adaptive">{trans.__('adaptive: as many nodes as needed')}</option>
          <option value="idle">{trans.__('stop when idle')}</option>
        </select>
      </label>
      {mode === 'fixed' && (
        <>
          <NumberField label={trans.__('Nodes')} value={nodes} change={setNodes} least={0} />
          <label className="shoal-Check">
            <input
              type="checkbox"
              checked={force}
              onChange={event => {
                setForce(event.target.checked);
              }}
            />
            <span>{trans.__('Do not wait for what runs on nodes that go')}</span>
          </label>
        </>
      )}
      {mode === 'adaptive' && (
        <>
          <NumberField label={trans.__('At least')} value={nodes} change={setNodes} least={0} />
          <NumberField label={trans.__('At most')} value={most} change={setMost} least={1} />
        </>
      )}
      {mode === 'idle' && (
        <NumberField
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
    </form>
  );
}

export function NumberField(props: {
  label: string;
  value: string;
  change: (value: string) => void;
  least: number;
}): React.JSX.Element {
  return (
    <label className="shoal-Field">
      <span>{props.label}</span>
      <input
        type="number"
        className="jp-mod-styled"
        required
        min={props.least}
        step={1}
        value={props.value}
        onChange={event => {
          props.change(event.target.value);
        }}
      />
    </label>
  );
}
