import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';

import {
  groupObjects,
  readExplanation,
  readFailures,
  readMemory,
  readPending,
  type IExplanation,
  type IFailure,
  type IObject
} from '../answers';
import { formatBytes, formatPercent, formatSeconds } from '../format';
import { AskingButton, Failure, Fold, Hint, More, TextButton, useAction, useAnswer } from '../parts';
import type { IPanelSection, ISectionProps } from '../sections';
import type { IActor, ICell, ICounts, IGroup, ISnapshot, IWaiting } from '../snapshot';
import { driversOf, isLive, progressOf, sortActors, sortCells } from '../work';
import { notableFunctions } from '../model';

const MOST_CELLS = 20;
const MOST_ROWS = 30;
/** Pending rows that are looked through for the one to explain. */
const MOST_PENDING = 1000;
/** Drivers asked for what failed and what they hold. */
const MOST_DRIVERS = 8;

/** Shows the notebook cell that a tag names; null where it cannot be found, as in a page without notebooks. */
export type GoToCell = (tag: string, notebook: string) => (() => void) | null;

export function makeWorkSection(trans: TranslationBundle, goTo: GoToCell): IPanelSection {
  return {
    id: 'work',
    title: trans.__('Work'),
    rank: 30,
    open: true,
    badge: ({ cluster }) => {
      const tasks = cluster?.snapshot?.tasks;
      if (!tasks) {
        return '';
      }
      const failed = tasks.failed > 0 ? trans.__('%1 failed', tasks.failed.toLocaleString()) : '';
      const running = tasks.running > 0 ? trans.__('%1 running', tasks.running.toLocaleString()) : '';
      return [running, failed].filter(Boolean).join(', ');
    },
    render: props => <Work {...props} goTo={goTo} />
  };
}

/** What the parts of this section are drawn from: a cluster that has told of itself. */
interface IPartProps extends ISectionProps {
  id: string;
  snapshot: ISnapshot;
  /** Whether actions make sense. */
  running: boolean;
}

function Work(props: ISectionProps & { goTo: GoToCell }): React.JSX.Element {
  const { cluster, goTo, trans } = props;
  const snapshot = cluster?.snapshot ?? null;
  if (cluster === null || snapshot === null) {
    return <Hint>{trans.__('The cluster has told nothing of itself yet.')}</Hint>;
  }
  if (snapshot.without_shoal === true) {
    return <Hint>{trans.__('There is no shoal in this Dask cluster: its work is not told of by cell.')}</Hint>;
  }
  const part: IPartProps = { ...props, id: cluster.id, snapshot, running: cluster.state === 'running' };
  const { cells, waiting, actors, groups, tasks, functions } = snapshot;
  // keyed by cluster: what is open, asked or typed belongs to the one shown
  return (
    <React.Fragment key={cluster.id}>
      {cells.length === 0 && functions.length === 0 && actors.length === 0 && (
        <Hint>{trans.__('No work yet. What cells send to the cluster is shown here, cell by cell.')}</Hint>
      )}
      {cells.length > 0 && (
        <Cells {...part} cells={cells} goTo={tag => goTo(tag, cluster.notebook)} />
      )}
      {waiting.length > 0 && (
        <Fold title={trans.__('Waiting (%1)', waiting.length)} open={true}>
          <ul className="shoal-List" aria-label={trans.__('Waiting work')}>
            {waiting.slice(0, MOST_ROWS).map(row => (
              <WaitingRow key={row.id} {...part} row={row} />
            ))}
          </ul>
          <More hidden={waiting.length - MOST_ROWS} trans={trans} />
        </Fold>
      )}
      {tasks.failed > 0 && (
        <Fold title={trans.__('Errors (%1)', tasks.failed.toLocaleString())}>
          <Errors {...part} />
        </Fold>
      )}
      {actors.length > 0 && (
        <Fold title={trans._n('%1 actor', '%1 actors', actors.length)}>
          <ul className="shoal-List" aria-label={trans.__('Actors')}>
            {sortActors(actors)
              .slice(0, MOST_ROWS)
              .map(actor => (
                <ActorRow key={actor.id} {...part} actor={actor} />
              ))}
          </ul>
          <More hidden={actors.length - MOST_ROWS} trans={trans} />
        </Fold>
      )}
      {functions.length > 0 && (
        <Fold title={trans._n('%1 function', '%1 functions', functions.length)}>
          <ul className="shoal-List" aria-label={trans.__('Functions')}>
            {notableFunctions(snapshot, MOST_ROWS).map(one => (
              <CountsRow key={one.name} name={one.name} counts={one} trans={trans} />
            ))}
          </ul>
          <More hidden={functions.length - MOST_ROWS} trans={trans} />
        </Fold>
      )}
      {part.running && (
        <Fold title={trans.__('Objects')}>
          <Objects {...part} />
        </Fold>
      )}
      {groups.length > 0 && (
        <Fold title={trans._n('%1 placement group', '%1 placement groups', groups.length)}>
          <ul className="shoal-List" aria-label={trans.__('Placement groups')}>
            {groups.slice(0, MOST_ROWS).map(group => (
              <GroupRow key={group.id} group={group} trans={trans} />
            ))}
          </ul>
          <More hidden={groups.length - MOST_ROWS} trans={trans} />
        </Fold>
      )}
    </React.Fragment>
  );
}

/** `3 running, 1 failed, 20 finished`: what there is none of is left out. */
function countsText(counts: ICounts, trans: TranslationBundle): string {
  const parts: [number, (count: string) => string][] = [
    [counts.running, count => trans.__('%1 running', count)],
    [counts.queued, count => trans.__('%1 queued', count)],
    [counts.failed, count => trans.__('%1 failed', count)],
    [counts.cancelled, count => trans.__('%1 cancelled', count)],
    [counts.finished, count => trans.__('%1 finished', count)]
  ];
  return parts
    .filter(([count]) => count > 0)
    .map(([count, words]) => words(count.toLocaleString()))
    .join(', ');
}

function CountsRow(props: { name: string; counts: ICounts; trans: TranslationBundle }): React.JSX.Element {
  const { name, counts, trans } = props;
  return (
    <li className="shoal-Row">
      <code className="shoal-Row-name" title={name}>
        {name}
      </code>
      <span className="shoal-Row-note">{countsText(counts, trans)}</span>
    </li>
  );
}

function Cells(
  props: IPartProps & { cells: readonly ICell[]; goTo: (tag: string) => (() => void) | null }
): React.JSX.Element {
  const { cells, trans } = props;
  const sorted = sortCells(cells);
  return (
    <>
      <ul className="shoal-Cells" aria-label={trans.__('Work by cell')}>
        {sorted.slice(0, MOST_CELLS).map(cell => (
          <CellRow key={cell.id} {...props} cell={cell} />
        ))}
      </ul>
      <More hidden={cells.length - MOST_CELLS} trans={trans} />
    </>
  );
}

function CellRow(
  props: IPartProps & { cell: ICell; goTo: (tag: string) => (() => void) | null }
): React.JSX.Element {
  const { id, cell, running, goTo, send, trans } = props;
  const action = useAction();
  const [asked, setAsked] = React.useState(false);
  const progress = progressOf(cell);
  const counts = countsText(cell, trans);
  const percent = formatPercent(progress.total > 0 ? progress.ended / progress.total : 0);
  const show = goTo(cell.id);
  const live = isLive(cell);
  return (
    <li className="shoal-Cell" data-live={live} aria-label={trans.__('Cell %1', cell.name)}>
      <div className="shoal-Row">
        {show ? (
          <button
            type="button"
            className="shoal-Link"
            onClick={show}
            title={trans.__('Show this cell in its notebook')}
            aria-label={trans.__('Go to cell %1', cell.name)}
          >
            {cell.name}
          </button>
        ) : (
          <span className="shoal-Row-name">{cell.name}</span>
        )}
        <span className="shoal-Row-note">
          {live ? percent : trans.__('%1 of work', formatSeconds(cell.seconds))}
        </span>
      </div>
      <div
        className="shoal-Progress"
        role="progressbar"
        aria-label={trans.__('Progress of cell %1', cell.name)}
        aria-valuemin={0}
        aria-valuemax={progress.total}
        aria-valuenow={progress.ended}
        aria-valuetext={`${percent}, ${counts}`}
      >
        <div data-part="finished" style={{ width: formatWidth(progress.finished) }} />
        <div data-part="failed" style={{ width: formatWidth(progress.failed) }} />
        <div data-part="cancelled" style={{ width: formatWidth(progress.cancelled) }} />
        <div data-part="running" style={{ width: formatWidth(progress.running) }} />
      </div>
      <div className="shoal-Row shoal-Row-wrap">
        <span className="shoal-Cell-counts">{counts}</span>
        {live && running && (
          <TextButton
            label={
              asked
                ? trans.__('End the processes that run the work of cell %1', cell.name)
                : trans.__('Cancel the work of cell %1', cell.name)
            }
            disabled={action.busy}
            onClick={() => {
              const body = { owner: cell.owner, cell: cell.id, force: asked };
              action.run(async () => {
                await send('POST', ['clusters', id, 'cancel'], body);
                setAsked(true);
              });
            }}
          >
            {asked ? trans.__('End by force') : trans.__('Cancel')}
          </TextButton>
        )}
      </div>
      <Failure action={action} />
      {cell.functions.length > 1 && (
        <Fold title={trans._n('%1 function', '%1 functions', cell.functions.length)}>
          <ul className="shoal-List" aria-label={trans.__('Functions of cell %1', cell.name)}>
            {cell.functions.map(one => (
              <CountsRow key={one.name} name={one.name} counts={one} trans={trans} />
            ))}
          </ul>
        </Fold>
      )}
    </li>
  );
}

function formatWidth(part: number): string {
  return `${Math.round(10_000 * part) / 100}%`;
}

function WaitingRow(props: IPartProps & { row: IWaiting }): React.JSX.Element {
  const { id, row, running, send, trans } = props;
  const action = useAction();
  const [found, setFound] = React.useState<IExplanation | null>(null);
  const explain = async (): Promise<void> => {
    const query = { owner: row.owner, limit: MOST_PENDING };
    const pending = readPending(await send('GET', ['clusters', id, 'pending'], undefined, query));
    const queued = pending.filter(work => work.state !== 'running');
    const work = queued.find(one => row.what.includes(one.function)) ?? queued[0];
    if (work === undefined) {
      throw new Error(trans.__('It does not wait any more.'));
    }
    const about = { owner: row.owner, object: work.object_id };
    const explanation = readExplanation(await send('GET', ['clusters', id, 'why'], undefined, about));
    if (explanation === null) {
      throw new Error(trans.__('Nobody knows what it waits for.'));
    }
    setFound(explanation);
  };
  return (
    <li className="shoal-Item">
      <div className="shoal-Row">
        <code className="shoal-Row-name" title={row.what}>
          {row.what}
        </code>
        <span className="shoal-Row-note">× {row.count.toLocaleString()}</span>
      </div>
      <div className="shoal-Row shoal-Row-wrap">
        <span className="shoal-Reason">{row.reason}</span>
        {running && row.owner !== '' && (
          <TextButton
            label={trans.__('Why does %1 wait?', row.what)}
            disabled={action.busy}
            onClick={() => {
              action.run(explain);
            }}
          >
            {trans.__('Why?')}
          </TextButton>
        )}
      </div>
      <Failure action={action} />
      {found && (
        <ul className="shoal-Why" aria-label={trans.__('Why it waits')}>
          <Why explanation={found} trans={trans} />
        </ul>
      )}
    </li>
  );
}

function Why({ explanation, trans }: { explanation: IExplanation; trans: TranslationBundle }): React.JSX.Element {
  const { subject, state, detail, advice, causes } = explanation;
  return (
    <li>
      <code>{subject}</code> {state && <strong>{state}</strong>} {detail}
      {advice && <p className="shoal-Advice">{trans.__('What would help: %1', advice)}</p>}
      {causes.length > 0 && (
        <ul>
          {causes.map((cause, index) => (
            <Why key={index} explanation={cause} trans={trans} />
          ))}
        </ul>
      )}
    </li>
  );
}

/** Ask each driver the same, and put the answers together; fails if nobody answers. */
async function askDrivers<T>(
  drivers: readonly string[],
  ask: (owner: string) => Promise<readonly T[]>
): Promise<(T & { driver: string })[]> {
  const answers = await Promise.allSettled(
    drivers.map(async driver => (await ask(driver)).map(row => ({ ...row, driver })))
  );
  const good = answers.filter(answer => answer.status === 'fulfilled');
  const bad = answers.find(answer => answer.status === 'rejected');
  if (good.length === 0 && bad !== undefined) {
    throw bad.reason;
  }
  return good.flatMap(answer => answer.value);
}

function Errors({ id, snapshot, running, send, trans }: IPartProps): React.JSX.Element {
  const drivers = driversOf(snapshot).slice(0, MOST_DRIVERS);
  const { value, failed } = useAnswer(
    running
      ? () =>
          askDrivers<IFailure>(drivers, async owner =>
            readFailures(await send('GET', ['clusters', id, 'failures'], undefined, { owner }))
          )
      : null,
    `${id} ${drivers.join(' ')}`,
    snapshot.tasks.failed
  );
  if (value === null || value.length === 0) {
    const none = running
      ? trans.__('The drivers of what failed have left, and their errors with them.')
      : trans.__('The cluster cannot be asked any more.');
    return <Hint>{failed || (value === null && running ? trans.__('Asking…') : none)}</Hint>;
  }
  return (
    <ul className="shoal-List" aria-label={trans.__('Errors')}>
      {value.slice(0, MOST_ROWS).map((row, index) => (
        <li key={`${row.cell} ${row.function} ${row.summary} ${index}`} className="shoal-Item">
          <div className="shoal-Row">
            <code className="shoal-Row-name" title={row.function}>
              {row.function}
            </code>
            <span className="shoal-Row-note">
              {[row.cell.split('#')[0], `× ${row.count.toLocaleString()}`].filter(Boolean).join(' ')}
            </span>
          </div>
          <p className="shoal-ErrorText">✕ {row.summary}</p>
          {row.traceback && (
            <Fold title={trans.__('Traceback')}>
              <pre className="shoal-Traceback" tabIndex={0} aria-label={trans.__('Traceback')}>
                {row.traceback}
              </pre>
            </Fold>
          )}
        </li>
      ))}
    </ul>
  );
}

/** A state is a shape and a word. */
const ACTOR_SHAPES: Readonly<Record<string, string>> = { pending: '◌', alive: '●', restarting: '↻', dead: '✕' };

function describeActorState(state: string, trans: TranslationBundle): string {
  switch (state) {
    case 'pending':
      return trans.__('pending');
    case 'alive':
      return trans.__('alive');
    case 'restarting':
      return trans.__('restarting');
    case 'dead':
      return trans.__('dead');
    default:
      return state;
  }
}

function ActorRow(props: IPartProps & { actor: IActor }): React.JSX.Element {
  const { id, actor, running, snapshot, send, trans } = props;
  const action = useAction();
  const name = actor.name || actor.class_name;
  const act = (verb: 'kill' | 'restart'): void => {
    action.run(() => send('POST', ['clusters', id, 'actors', actor.id], { action: verb }));
  };
  const host = snapshot.nodes.find(node => node.id === actor.node)?.host ?? '';
  const about = [
    actor.name ? actor.class_name : '',
    trans._n('%1 call pending', '%1 calls pending', actor.pending),
    actor.restarts > 0 ? trans._n('%1 restart', '%1 restarts', actor.restarts) : '',
    host
  ];
  return (
    <li className="shoal-Item" aria-label={trans.__('Actor %1', name)}>
      <div className="shoal-Row">
        <code className="shoal-Row-name" title={actor.id}>
          {name}
        </code>
        <span className="shoal-Row-note" data-state={actor.state}>
          <span aria-hidden="true">{ACTOR_SHAPES[actor.state] ?? '?'} </span>
          {describeActorState(actor.state, trans)}
        </span>
      </div>
      <p className="shoal-Note">{about.filter(Boolean).join(' · ')}</p>
      {running && actor.state !== 'dead' && (
        <div className="shoal-Buttons">
          <TextButton
            label={trans.__('Restart actor %1', name)}
            disabled={action.busy || actor.state !== 'alive'}
            onClick={() => {
              act('restart');
            }}
          >
            {trans.__('Restart')}
          </TextButton>
          <AskingButton
            label={trans.__('Stop')}
            about={trans.__('Stop actor %1', name)}
            question={trans.__('Stop “%1”? Its state is lost.', name)}
            yes={trans.__('Stop it')}
            no={trans.__('Keep it')}
            disabled={action.busy}
            onYes={() => {
              act('kill');
            }}
          />
        </div>
      )}
      <Failure action={action} />
    </li>
  );
}

function Objects({ id, snapshot, send, trans }: IPartProps): React.JSX.Element {
  const drivers = driversOf(snapshot).slice(0, MOST_DRIVERS);
  const action = useAction();
  const [round, setRound] = React.useState(0);
  const { value, failed } = useAnswer(
    () =>
      askDrivers<IObject>(drivers, async owner =>
        readMemory(await send('GET', ['clusters', id, 'memory'], undefined, { owner }))
      ),
    `${id} ${drivers.join(' ')} ${round}`,
    snapshot.nodes.reduce((sum, node) => sum + node.store_used, 0)
  );
  const again = React.useCallback(() => {
    setRound(now => now + 1);
  }, []);
  if (value === null) {
    return <Hint>{failed || trans.__('Asking…')}</Hint>;
  }
  const holdings = groupObjects(value);
  return (
    <>
      {holdings.length === 0 && <Hint>{trans.__('The object stores hold nothing of the drivers.')}</Hint>}
      <ul className="shoal-List" aria-label={trans.__('Objects by cell and holder')}>
        {holdings.slice(0, MOST_ROWS).map(one => (
          <li key={`${one.cell} ${one.holder}`} className="shoal-Item">
            <div className="shoal-Row">
              <span className="shoal-Row-name" title={one.holder}>
                {one.cell && <span className="shoal-Tag">{one.cell}</span>} {one.holder}
              </span>
              <span className="shoal-Row-note">
                {one.count > 1
                  ? trans.__('%1 in %2', formatBytes(one.nbytes), one.count.toLocaleString())
                  : formatBytes(one.nbytes)}
              </span>
            </div>
            {one.count === 1 ? (
              <Release id={id} rows={one.objects} holder={one.holder} send={send} trans={trans} done={again} />
            ) : (
              <Fold title={trans.__('One by one')}>
                <Release id={id} rows={one.objects} holder={one.holder} send={send} trans={trans} done={again} />
              </Fold>
            )}
          </li>
        ))}
      </ul>
      <More hidden={holdings.length - MOST_ROWS} trans={trans} />
      {drivers.length > 0 && (
        <div className="shoal-Buttons">
          <TextButton
            label={trans.__('Let the notebooks forget what outputs and tracebacks hold')}
            disabled={action.busy}
            onClick={() => {
              action.run(async () => {
                await Promise.all(
                  drivers.map(owner => send('POST', ['clusters', id, 'release'], { owner }))
                );
                setRound(now => now + 1);
              });
            }}
          >
            {trans.__('Release outputs and tracebacks')}
          </TextButton>
        </div>
      )}
      <Failure action={action} />
    </>
  );
}

/** Values that take room in a store, each with a button that has its owner let go of it. */
function Release(props: {
  id: string;
  rows: readonly (IObject & { driver: string })[];
  holder: string;
  send: ISectionProps['send'];
  trans: TranslationBundle;
  done: () => void;
}): React.JSX.Element {
  const { id, rows, holder, send, trans, done } = props;
  const action = useAction();
  // of another process, or too small to be in a store: its owner alone could, or there is nothing to gain
  const mine = rows.filter(row => row.owner === '' && row.object_id !== '' && /^(memory|disk)$/.test(row.where));
  return (
    <>
      {mine.slice(0, MOST_ROWS).map(row => (
        <div key={row.object_id} className="shoal-Row shoal-Row-wrap">
          <span className="shoal-Note" title={row.object_id}>
            {rows.length > 1 ? formatBytes(row.nbytes) : ''}
          </span>
          <AskingButton
            label={trans.__('Release')}
            about={trans.__('Release %1 of %2', formatBytes(row.nbytes), holder)}
            question={trans.__(
              'Release %1 of %2? Variables stay; who reads the value later is told that it is gone.',
              formatBytes(row.nbytes),
              holder
            )}
            yes={trans.__('Release it')}
            no={trans.__('Keep it')}
            disabled={action.busy}
            onYes={() => {
              action.run(async () => {
                await send('POST', ['clusters', id, 'release'], { owner: row.driver, object: row.object_id });
                done();
              });
            }}
          />
        </div>
      ))}
      <More hidden={mine.length - MOST_ROWS} trans={trans} />
      <Failure action={action} />
    </>
  );
}

function GroupRow({ group, trans }: { group: IGroup; trans: TranslationBundle }): React.JSX.Element {
  return (
    <li className="shoal-Item">
      <div className="shoal-Row">
        <span className="shoal-Row-name" title={group.id}>
          {group.strategy}
        </span>
        <span className="shoal-Row-note">{group.state}</span>
      </div>
      <ul className="shoal-Note">
        {group.bundles.slice(0, MOST_ROWS).map((bundle, index) => (
          <li key={index}>
            {Object.entries(bundle.resources)
              .map(([name, amount]) => `${name} ${amount}`)
              .join(', ')}
            {bundle.node ? ` · ${bundle.node}` : ` · ${trans.__('no place yet')}`}
          </li>
        ))}
      </ul>
    </li>
  );
}
