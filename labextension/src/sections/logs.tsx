import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';

import { readExecutors, readLog, type ILogLine } from '../answers';
import { isRecord } from '../model';
import { Check, Choice, Failure, Hint, TextButton, TextField, useAction, useAnswer } from '../parts';
import type { IPanelSection, ISectionProps } from '../sections';
import type { ISnapshot } from '../snapshot';

/** Lines kept in the page, and lines of one answer. */
const MOST_LINES = 2000;
const PAGE_LINES = 500;
/** Milliseconds between two looks while it follows. */
const FOLLOW_MS = 1000;
/** Seconds that a profile takes. */
const PROFILE_SECONDS = 5;

export function makeLogsSection(trans: TranslationBundle): IPanelSection {
  return {
    id: 'logs',
    title: trans.__('Logs'),
    rank: 40,
    render: props => <Logs {...props} />
  };
}

/** Whose log is shown: the node to ask, and the executor or actor there. */
interface ISource {
  /** The executor that can be asked what it does; "" if there is none. */
  executor: string;
  node: string;
  source: string;
  label: string;
}

function sourcesOf(answer: unknown, snapshot: ISnapshot | null, trans: TranslationBundle): ISource[] {
  const found = readExecutors(answer);
  const actors = (snapshot?.actors ?? [])
    .filter(actor => actor.node !== '')
    .map(actor => ({
      node: actor.node,
      source: actor.id,
      executor: actor.state === 'alive' ? (found.find(one => one.actor === actor.id)?.id ?? '') : '',
      label: trans.__('actor %1', `${actor.name || actor.class_name} (${actor.id})`)
    }));
  const executors = found.map(one => ({
    node: one.node,
    source: one.id,
    executor: one.state === 'ended' ? '' : one.id,
    label: trans.__('executor %1', one.actor ? `${one.id} (${one.actor})` : one.id)
  }));
  return [...actors, ...executors];
}

function Logs({ cluster, send, trans }: ISectionProps): React.JSX.Element {
  const id = cluster?.id ?? '';
  const snapshot = cluster?.snapshot ?? null;
  const executors = useAnswer(
    cluster?.state === 'running' && snapshot?.without_shoal !== true
      ? () => send('GET', ['clusters', id, 'executors'])
      : null,
    id,
    snapshot?.nodes.reduce((sum, node) => sum + (node.executors ?? 0), 0) ?? 0
  );
  const sources = sourcesOf(executors.value, snapshot, trans);
  const [chosen, setChosen] = React.useState('');
  const [task, setTask] = React.useState('');
  const [filter, setFilter] = React.useState('');
  const [follow, setFollow] = React.useState(true);
  const source = sources.find(one => one.source === chosen) ?? sources[0];
  const { lines, failed } = useLog(send, id, source, filter, follow && cluster?.state === 'running');
  const shown = task === '' ? lines : lines.filter(line => line.task_id === task || line.function === task);
  const box = React.useRef<HTMLDivElement>(null);
  React.useEffect(() => {
    if (follow && box.current !== null) {
      box.current.scrollTop = box.current.scrollHeight;
    }
  }, [shown.length, follow]);
  if (source === undefined) {
    return (
      <Hint>{executors.failed || trans.__('There is no executor yet. Logs are kept by executor and by actor.')}</Hint>
    );
  }
  const functions = [...new Set(lines.map(line => line.function).filter(Boolean))].sort();
  return (
    <div className="shoal-Logs">
      <Choice
        label={trans.__('Log of')}
        value={source.source}
        options={sources.map(one => [one.source, one.label] as const)}
        change={setChosen}
      />
      <TextField
        label={trans.__('Filter')}
        value={filter}
        placeholder={trans.__('text in the line')}
        search
        optional
        change={setFilter}
      />
      {functions.length > 1 && (
        <Choice
          label={trans.__('Task')}
          value={task}
          options={[['', trans.__('all')], ...functions.map(name => [name, name] as const)]}
          change={setTask}
        />
      )}
      <Check label={trans.__('Follow')} checked={follow} change={setFollow} />
      {source.executor !== '' && cluster?.state === 'running' && (
        <Stack key={source.source} cluster={id} node={source.node} executor={source.executor} send={send} trans={trans} />
      )}
      {failed && (
        <p className="shoal-Failure" role="alert">
          {failed}
        </p>
      )}
      <div
        ref={box}
        className="shoal-LogLines"
        tabIndex={0}
        role="log"
        aria-live="off"
        aria-label={trans.__('Log of %1', source.label)}
      >
        {shown.length === 0 && !failed && <Hint>{trans.__('No lines.')}</Hint>}
        {shown.map((line, index) => (
          <LogLine key={index} line={line} trans={trans} />
        ))}
      </div>
    </div>
  );
}

/** What an executor does right now, line by line of its stack, or for some seconds, as a flame graph. */
function Stack(props: {
  cluster: string;
  node: string;
  executor: string;
  send: ISectionProps['send'];
  trans: TranslationBundle;
}): React.JSX.Element {
  const { cluster, node, executor, send, trans } = props;
  const action = useAction();
  const [stack, setStack] = React.useState('');
  const [profile, setProfile] = React.useState('');
  return (
    <>
      <div className="shoal-Buttons">
        <TextButton
          label={trans.__('Profile what %1 does for %2 seconds', executor, PROFILE_SECONDS)}
          disabled={action.busy}
          onClick={() => {
            action.run(async () => {
              const body = { node, executor, seconds: PROFILE_SECONDS };
              const answer = await send('POST', ['clusters', cluster, 'profile'], body);
              setProfile(isRecord(answer) && typeof answer.html === 'string' ? answer.html : '');
            });
          }}
        >
          {trans.__('Profile')}
        </TextButton>
        <TextButton
          label={trans.__('Show what %1 does right now', executor)}
          disabled={action.busy}
          onClick={() => {
            action.run(async () => {
              const answer = await send('GET', ['clusters', cluster, 'stack'], undefined, { node, executor });
              const found = isRecord(answer) && typeof answer.stack === 'string' ? answer.stack : '';
              setStack(found || trans.__('It does nothing.'));
            });
          }}
        >
          {trans.__('Stack')}
        </TextButton>
      </div>
      {action.busy && <Hint>{trans.__('Asking…')}</Hint>}
      {profile && (
        <>
          {/* without scripts, and in an origin of its own */}
          <iframe
            className="shoal-Profile"
            sandbox=""
            srcDoc={profile}
            title={trans.__('Flame graph of %1', executor)}
          />
          <p className="shoal-Links">
            <a href={`data:text/html;charset=utf-8,${encodeURIComponent(profile)}`} download={`${executor}.html`}>
              {trans.__('Download the flame graph')}
            </a>
          </p>
        </>
      )}
      {stack && (
        <pre className="shoal-Traceback" tabIndex={0} aria-label={trans.__('Stack of %1', executor)}>
          {stack}
        </pre>
      )}
      <Failure action={action} />
    </>
  );
}

const LogLine = React.memo(function LogLine({ line, trans }: { line: ILogLine; trans: TranslationBundle }) {
  const about = [line.function, line.task_id, line.time ? new Date(1000 * line.time).toLocaleTimeString() : ''];
  return (
    <div data-stream={line.stream} title={about.filter(Boolean).join(' · ') || undefined}>
      {line.stream === 'stderr' && <span className="shoal-LogLines-mark">{trans.__('err')} </span>}
      {line.text}
    </div>
  );
});

/** The newest lines of a log; more of them as they are written. */
function useLog(
  send: ISectionProps['send'],
  cluster: string,
  source: ISource | undefined,
  filter: string,
  follow: boolean
): { lines: ILogLine[]; failed: string } {
  const [log, setLog] = React.useState<{ lines: ILogLine[]; failed: string }>({ lines: [], failed: '' });
  const node = source?.node ?? '';
  const name = source?.source ?? '';
  React.useEffect(() => {
    let current = true;
    let timer: ReturnType<typeof setTimeout> | undefined;
    // a negative place counts from the end
    let offset = -PAGE_LINES;
    const look = async (): Promise<void> => {
      try {
        const query = { node, source: name, offset, limit: PAGE_LINES, filter };
        const page = readLog(await send('GET', ['clusters', cluster, 'logs'], undefined, query), offset);
        if (!current) {
          return;
        }
        const first = offset < 0;
        offset = page.offset;
        setLog(old => ({
          lines: first ? page.lines : page.lines.length > 0 ? [...old.lines, ...page.lines].slice(-MOST_LINES) : old.lines,
          failed: ''
        }));
      } catch (reason) {
        if (current) {
          setLog(old => ({ ...old, failed: reason instanceof Error ? reason.message : String(reason) }));
        }
      }
      if (follow) {
        timer = setTimeout(() => void look(), FOLLOW_MS);
      }
    };
    if (name !== '') {
      setLog({ lines: [], failed: '' });
      // who types a filter is let finish the word
      timer = setTimeout(() => void look(), filter === '' ? 0 : 300);
    }
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [send, cluster, node, name, filter, follow]);
  return log;
}
