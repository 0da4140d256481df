import { Time } from '@jupyterlab/coreutils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { addBelowIcon, caretRightIcon } from '@jupyterlab/ui-components';
import React from 'react';

import { Meter } from './meter';
import {
  displayName,
  formatBytes,
  formatNumber,
  groupActors,
  notableFunctions,
  ownerName,
  ratio,
  totals,
  type ICluster,
  type INode,
  type ISnapshot
} from './model';

/** Longer lists say how many more there are: the panel must stay quick with a thousand nodes. */
const MOST_NODES = 50;
const MOST_FUNCTIONS = 8;
const MOST_ACTORS = 20;

interface IPart {
  snapshot: ISnapshot;
  trans: TranslationBundle;
}

export interface ICardProps {
  cluster: ICluster;
  trans: TranslationBundle;
  /** Put the connecting cell into the notebook; null where there is no notebook to put it into. */
  insertConnect: (() => void) | null;
}

/** Everything about one cluster. */
export function ClusterCard({ cluster, trans, insertConnect }: ICardProps): React.JSX.Element {
  const { snapshot } = cluster;
  const name = displayName(cluster);
  const state = describeState(cluster, trans);
  return (
    <li className="shoal-Card" data-state={state.kind} aria-label={trans.__('Cluster %1, %2', name, state.text)}>
      <header className="shoal-Card-header">
        <span className="shoal-Card-dot" aria-hidden="true" />
        <h3 className="shoal-Card-name" title={`${cluster.id}\n${cluster.address}`}>
          {name}
        </h3>
        <span className="shoal-Card-state">{state.text}</span>
        <button
          type="button"
          className="jp-Button jp-mod-minimal shoal-IconButton"
          title={trans.__('Insert a cell that connects this notebook to “%1”', name)}
          aria-label={trans.__('Insert a cell that connects to %1', name)}
          disabled={insertConnect === null}
          onClick={insertConnect ?? undefined}
        >
          <addBelowIcon.react tag="span" elementSize="normal" />
        </button>
      </header>
      <p className="shoal-Card-origin" title={cluster.notebook || undefined}>
        {describeOrigin(cluster, trans)}
      </p>
      {cluster.message && <p className="shoal-Card-message">{cluster.message}</p>}
      {snapshot && (
        <>
          <Usage snapshot={snapshot} trans={trans} />
          <TaskCounts snapshot={snapshot} trans={trans} />
          <Nodes snapshot={snapshot} trans={trans} />
          <Functions snapshot={snapshot} trans={trans} />
          <Actors snapshot={snapshot} trans={trans} />
        </>
      )}
    </li>
  );
}

function describeState(cluster: ICluster, trans: TranslationBundle): { kind: string; text: string } {
  if (cluster.state !== 'running') {
    return { kind: 'unreachable', text: trans.__('not reachable') };
  }
  const busy = (cluster.snapshot?.tasks.running ?? 0) > 0;
  return busy ? { kind: 'busy', text: trans.__('busy') } : { kind: 'idle', text: trans.__('idle') };
}

function describeOrigin(cluster: ICluster, trans: TranslationBundle): string {
  const { snapshot } = cluster;
  const parts = [ownerName(cluster) || trans.__('process %1', cluster.pid)];
  if (cluster.kind === 'attached') {
    parts.push(trans.__('on a Dask cluster'));
  }
  if (snapshot) {
    const age = Math.max(0, snapshot.time - snapshot.cluster.started);
    parts.push(trans.__('started %1', Time.formatHuman(new Date(Date.now() - 1000 * age))));
  }
  return parts.join(' · ');
}

function Usage({ snapshot, trans }: IPart): React.JSX.Element {
  const sum = totals(snapshot);
  return (
    <div className="shoal-Meters">
      <CpuMeter load={sum.cpuRatio} used={sum.cpusUsed} all={sum.cpus} trans={trans} />
      <MemoryMeter used={sum.memoryUsed} all={sum.memory} trans={trans} />
    </div>
  );
}

/** The bar is the measured load; the figures are what tasks and actors have been granted. */
function CpuMeter(props: {
  load: number;
  used: number;
  all: number;
  trans: TranslationBundle;
}): React.JSX.Element {
  const { load, used, all, trans } = props;
  return (
    <Meter
      label={trans.__('CPU')}
      value={load}
      warn={false}
      text={trans.__('%1 of %2 CPUs granted', formatNumber(used), formatNumber(all))}
    />
  );
}

function MemoryMeter(props: { used: number; all: number; trans: TranslationBundle }): React.JSX.Element {
  const { used, all, trans } = props;
  return (
    <Meter
      label={trans.__('Memory')}
      value={ratio(used, all)}
      warn={true}
      text={trans.__('%1 of %2', formatBytes(used), formatBytes(all))}
    />
  );
}

function TaskCounts({ snapshot, trans }: IPart): React.JSX.Element {
  const { running, queued, finished, failed } = snapshot.tasks;
  const counts: [string, number, boolean][] = [
    [trans.__('running'), running, false],
    [trans.__('queued'), queued, false],
    [trans.__('finished'), finished, false],
    [trans.__('failed'), failed, failed > 0]
  ];
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

/** A part of the card that opens and shuts, by mouse and by keyboard. */
function Fold(props: { title: string; children: React.ReactNode }): React.JSX.Element {
  return (
    <details className="shoal-Fold">
      <summary>
        <caretRightIcon.react tag="span" className="shoal-Fold-caret" elementSize="normal" />
        {props.title}
      </summary>
      {props.children}
    </details>
  );
}

function More({ hidden, trans }: { hidden: number; trans: TranslationBundle }): React.JSX.Element | null {
  return hidden > 0 ? <p className="shoal-More">{trans._n('and %1 more', 'and %1 more', hidden)}</p> : null;
}

function Nodes({ snapshot, trans }: IPart): React.JSX.Element {
  const { nodes } = snapshot;
  return (
    <Fold title={trans._n('%1 node', '%1 nodes', nodes.length)}>
      <ul className="shoal-List" aria-label={trans.__('Nodes')}>
        {nodes.slice(0, MOST_NODES).map(node => (
          <NodeRow key={node.id} node={node} alone={nodes.length === 1} trans={trans} />
        ))}
      </ul>
      <More hidden={nodes.length - MOST_NODES} trans={trans} />
    </Fold>
  );
}

function NodeRow(props: { node: INode; alone: boolean; trans: TranslationBundle }): React.JSX.Element {
  const { node, alone, trans } = props;
  return (
    <li className="shoal-Node">
      <div className="shoal-Row">
        <span className="shoal-Row-name" title={node.id}>
          {node.host}
        </span>
        <span className="shoal-Row-note">{trans._n('%1 executor', '%1 executors', node.executors)}</span>
      </div>
      {/* a node that is alone has the figures of the cluster, which stand above */}
      {!alone && (
        <>
          <CpuMeter load={ratio(node.cpu_ratio, 1)} used={node.cpus_used} all={node.cpus} trans={trans} />
          <MemoryMeter used={node.memory_used} all={node.memory} trans={trans} />
        </>
      )}
    </li>
  );
}

function Functions({ snapshot, trans }: IPart): React.JSX.Element | null {
  const total = snapshot.functions.length;
  if (total === 0) {
    return null;
  }
  return (
    <Fold title={trans._n('%1 function', '%1 functions', total)}>
      <ul className="shoal-List" aria-label={trans.__('Functions')}>
        {notableFunctions(snapshot, MOST_FUNCTIONS).map(one => (
          <li key={one.name} className="shoal-Row">
            <code className="shoal-Row-name" title={one.name}>
              {one.name}
            </code>
            <span className="shoal-Row-note">
              {[
                one.running > 0 ? trans.__('%1 running', one.running.toLocaleString()) : '',
                one.failed > 0 ? trans.__('%1 failed', one.failed.toLocaleString()) : '',
                trans.__('%1 finished', one.finished.toLocaleString())
              ]
                .filter(Boolean)
                .join(', ')}
            </span>
          </li>
        ))}
      </ul>
      <More hidden={total - MOST_FUNCTIONS} trans={trans} />
    </Fold>
  );
}

function Actors({ snapshot, trans }: IPart): React.JSX.Element | null {
  const groups = groupActors(snapshot.actors);
  if (groups.length === 0) {
    return null;
  }
  return (
    <Fold title={trans._n('%1 actor', '%1 actors', snapshot.actors.length)}>
      <ul className="shoal-List" aria-label={trans.__('Actors')}>
        {groups.slice(0, MOST_ACTORS).map(group => (
          <li key={`${group.className} ${group.state}`} className="shoal-Row">
            <code className="shoal-Row-name" title={group.names.join(', ') || undefined}>
              {group.count > 1 ? `${group.className} × ${group.count}` : group.className}
            </code>
            <span className="shoal-Row-note">{group.state}</span>
          </li>
        ))}
      </ul>
      <More hidden={groups.length - MOST_ACTORS} trans={trans} />
    </Fold>
  );
}
