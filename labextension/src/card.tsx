import { Time } from '@jupyterlab/coreutils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { addBelowIcon, linkIcon } from '@jupyterlab/ui-components';
import React from 'react';

import { formatBytes, formatNumber, formatSeconds, ratio } from './format';
import { Meter } from './meter';
import { displayName, isRecord, isStale, ownerName, totals, type ICluster } from './model';
import { AskingButton, Failure, Fold, IconButton, TextButton, useAction, useAnswer, useNow } from './parts';
import { ScaleForm } from './scaleForm';
import type { IClusterActions } from './sections/clusters';
import type { ISectionProps } from './sections';
import type { ISnapshot } from './snapshot';

export interface ICardProps extends Pick<ISectionProps, 'store' | 'send' | 'trans'> {
  cluster: ICluster;
  /** Whether the other sections show this cluster. */
  shown: boolean;
  /** Whether there is no other. */
  alone: boolean;
  actions: IClusterActions;
}

/** One cluster: what it is, how it is, and what can be done with it. */
export function ClusterCard(props: ICardProps): React.JSX.Element {
  const { cluster, shown, alone, store, trans, actions } = props;
  const { snapshot } = cluster;
  const name = displayName(cluster);
  const state = describeState(cluster, trans);
  const action = useAction();
  const join = actions.useInNotebook;
  const running = cluster.state === 'running';
  return (
    <li
      className="shoal-Card"
      data-state={state.kind}
      data-shown={shown && !alone}
      aria-label={trans.__('Cluster %1, %2', name, state.text)}
    >
      <header className="shoal-Card-header">
        <span className="shoal-Card-dot" aria-hidden="true" />
        <h4 className="shoal-Card-name" title={`${cluster.id}\n${cluster.address}`}>
          {alone || cluster.state === 'starting' ? (
            name
          ) : (
            <button
              type="button"
              className="shoal-Link"
              aria-pressed={shown}
              title={trans.__('Show this cluster in the parts below')}
              onClick={() => {
                store.choose(cluster.id);
              }}
            >
              {name}
            </button>
          )}
        </h4>
        <span className="shoal-Card-state">{state.text}</span>
        {running && join !== null && snapshot?.without_shoal !== true && (
          <IconButton
            icon={linkIcon}
            label={trans.__('Use %1 in this notebook', name)}
            title={trans.__('Have the kernel of this notebook use “%1”. Its variables stay as they are.', name)}
            disabled={!actions.hasKernel() || action.busy}
            onClick={() => {
              action.run(() => join(cluster));
            }}
          />
        )}
        {(running || cluster.state === 'unreachable') && cluster.kind !== 'unreadable' && (
          <IconButton
            icon={addBelowIcon}
            label={trans.__('Insert a cell that connects to %1', name)}
            title={trans.__('Insert a cell that connects this notebook to “%1”', name)}
            disabled={!actions.hasNotebook()}
            onClick={() => {
              actions.insertConnect(cluster);
            }}
          />
        )}
      </header>
      <p className="shoal-Card-origin" title={cluster.notebook || undefined}>
        {describeOrigin(cluster, trans)}
      </p>
      {cluster.message && <p className="shoal-Card-message">{cluster.message}</p>}
      <Age cluster={cluster} trans={trans} />
      <Failure action={action} />
      {cluster.state === 'starting' && <Starting {...props} />}
      {cluster.state === 'ended' && cluster.listed && snapshot === null && <StartLog {...props} open={false} />}
      {snapshot && (
        <>
          <Usage snapshot={snapshot} trans={trans} />
          <TaskCounts snapshot={snapshot} trans={trans} />
        </>
      )}
      {running && <Control {...props} />}
      {cluster.state === 'unreachable' && <Control {...props} />}
      {cluster.state === 'ended' && (
        <div className="shoal-Buttons">
          <TextButton
            label={trans.__('Remove %1 from the list', name)}
            onClick={() => {
              action.run(async () => {
                if (cluster.listed) {
                  // a start that failed
                  await props.send('DELETE', ['starts', cluster.id]);
                }
                store.forget(cluster.id);
              });
            }}
          >
            {trans.__('Remove from the list')}
          </TextButton>
        </div>
      )}
    </li>
  );
}

/** How old the figures are, where they are not those of now. */
function Age({ cluster, trans }: { cluster: ICluster; trans: TranslationBundle }): React.JSX.Element | null {
  const stale = isStale(cluster);
  const now = useNow(stale);
  return stale ? (
    <p className="shoal-Card-age">
      {trans.__('Last data: %1 ago.', formatSeconds(Math.max(0, Math.round(now - cluster.seen))))}
    </p>
  ) : null;
}

/** What the process that starts a cluster has printed. */
function StartLog({ cluster, send, trans, open }: ICardProps & { open: boolean }): React.JSX.Element {
  const second = Math.round(useNow(cluster.state === 'starting'));
  const { value } = useAnswer(() => send('GET', ['starts', cluster.id]), cluster.id, second, 1000);
  const found = isRecord(value) ? value : {};
  const log = Array.isArray(found.log) ? found.log.join('\n') : typeof found.log === 'string' ? found.log : '';
  return (
    <Fold title={trans.__('Log of the start')} open={open}>
      <pre className="shoal-StartLog" tabIndex={0} aria-label={trans.__('Log of the start')}>
        {log || trans.__('Nothing yet.')}
      </pre>
    </Fold>
  );
}

/** The start of a cluster: its log, and a way to give it up. */
function Starting(props: ICardProps): React.JSX.Element {
  const { cluster, send, trans } = props;
  const action = useAction();
  return (
    <>
      <div className="shoal-Busy" role="progressbar" aria-label={trans.__('Starting')} />
      <StartLog {...props} open={true} />
      <div className="shoal-Buttons">
        <TextButton
          disabled={action.busy}
          onClick={() => {
            action.run(() => send('DELETE', ['starts', cluster.id]));
          }}
        >
          {trans.__('Give up')}
        </TextButton>
      </div>
      <Failure action={action} />
    </>
  );
}

/** Scale it, and stop it. */
function Control({ cluster, send, store, trans }: ICardProps): React.JSX.Element {
  const action = useAction();
  const name = displayName(cluster);
  const [scaling, setScaling] = React.useState(false);
  const running = cluster.state === 'running';
  // a Dask cluster without shoal is only looked at
  const stops = running && cluster.snapshot?.without_shoal !== true;
  return (
    <>
      {scaling && running && (
        <ScaleForm
          cluster={cluster}
          send={send}
          trans={trans}
          close={() => {
            setScaling(false);
          }}
        />
      )}
      <div className="shoal-Buttons">
        {running && !scaling && cluster.snapshot?.without_shoal !== true && (
          <TextButton
            label={trans.__('Scale %1', name)}
            onClick={() => {
              setScaling(true);
            }}
          >
            {trans.__('Scale…')}
          </TextButton>
        )}
        <AskingButton
          label={stops ? trans.__('Stop') : trans.__('Remove')}
          about={stops ? trans.__('Stop %1', name) : trans.__('Remove %1', name)}
          question={
            stops
              ? trans.__('Stop “%1”? What runs on it is lost, also that of other notebooks.', name)
              : running
                ? trans.__('Remove “%1” from the list? The Dask cluster itself goes on.', name)
                : trans.__('Remove “%1” from the list? If it still runs, it is told to stop.', name)
          }
          yes={stops ? trans.__('Stop it') : trans.__('Remove it')}
          no={trans.__('Keep it')}
          disabled={action.busy}
          onYes={() => {
            action.run(async () => {
              await send('DELETE', ['clusters', cluster.id]);
              await store.refresh();
            });
          }}
        />
      </div>
      <Failure action={action} />
    </>
  );
}

function describeState(cluster: ICluster, trans: TranslationBundle): { kind: string; text: string } {
  switch (cluster.state) {
    case 'unreachable':
      return { kind: 'unreachable', text: trans.__('not reachable') };
    case 'starting':
      return { kind: 'starting', text: trans.__('starting') };
    case 'ended':
      return { kind: 'ended', text: trans.__('has ended') };
    default: {
      const busy = (cluster.snapshot?.tasks.running ?? 0) > 0;
      return busy ? { kind: 'busy', text: trans.__('busy') } : { kind: 'idle', text: trans.__('idle') };
    }
  }
}

function describeOrigin(cluster: ICluster, trans: TranslationBundle): string {
  const { snapshot } = cluster;
  const parts = [ownerName(cluster) || (cluster.pid > 0 ? trans.__('process %1', cluster.pid) : '')];
  if (cluster.kind === 'detached') {
    parts.push(trans.__('runs by itself'));
  }
  if (cluster.kind === 'attached' && cluster.state !== 'starting') {
    parts.push(trans.__('on a Dask cluster'));
  }
  if (snapshot) {
    const age = Math.max(0, snapshot.time - snapshot.cluster.started);
    const started = new Date(1000 * (cluster.seen - age));
    parts.push(trans.__('started %1', Time.formatHuman(started)));
    if (snapshot.drivers > 1) {
      parts.push(trans.__('%1 drivers', snapshot.drivers));
    }
  }
  return parts.filter(Boolean).join(' · ');
}

function Usage({ snapshot, trans }: { snapshot: ISnapshot; trans: TranslationBundle }): React.JSX.Element {
  const sum = totals(snapshot);
  return (
    <div className="shoal-Meters">
      {/* the bar is the measured load; the figures are what tasks and actors have been granted */}
      <Meter
        label={trans.__('CPU')}
        value={sum.cpuRatio}
        warn={false}
        text={
          snapshot.without_shoal === true
            ? trans.__('%1 of %2 threads busy', formatNumber(sum.cpusUsed), formatNumber(sum.cpus))
            : trans.__('%1 of %2 CPUs granted', formatNumber(sum.cpusUsed), formatNumber(sum.cpus))
        }
      />
      <Meter
        label={trans.__('Memory')}
        value={ratio(sum.memoryUsed, sum.memory)}
        warn={true}
        text={trans.__('%1 of %2', formatBytes(sum.memoryUsed), formatBytes(sum.memory))}
      />
    </div>
  );
}

function TaskCounts({ snapshot, trans }: { snapshot: ISnapshot; trans: TranslationBundle }): React.JSX.Element {
  const { running, queued, finished, failed } = snapshot.tasks;
  const counts: [string, number, boolean][] = [
    [trans.__('running'), running, false],
    [trans.__('queued'), queued, false]
  ];
  if (snapshot.without_shoal !== true) {
    // Dask does not tell how many there have been
    counts.push([trans.__('finished'), finished, false], [trans.__('failed'), failed, failed > 0]);
  }
  return (
    <dl className="shoal-Counts" aria-label={trans.__('Tasks')}>
      {counts.map(([label, count, bad]) => (
        <div key={label} data-bad={bad || undefined}>
          <dt>{label}</dt>
          <dd>{count.toLocaleString()}</dd>
        </div>
      ))}
    </dl>
  );
}
