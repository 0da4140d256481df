/** What the sections are built from. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { caretRightIcon, type LabIcon } from '@jupyterlab/ui-components';
import React from 'react';

export function IconButton(props: {
  icon: LabIcon;
  label: string;
  /** For the mouse; the label, if there is nothing more to say. */
  title?: string;
  onClick?: (() => void) | undefined;
  disabled?: boolean;
}): React.JSX.Element {
  const { icon: Icon, label, title, onClick, disabled } = props;
  return (
    <button
      type="button"
      className="jp-Button jp-mod-minimal shoal-IconButton"
      title={title ?? label}
      aria-label={label}
      disabled={disabled ?? false}
      onClick={onClick}
    >
      <Icon.react tag="span" elementSize="normal" />
    </button>
  );
}

export function TextButton(props: {
  children: React.ReactNode;
  onClick: () => void;
  /** What it does, where the words on it do not say enough by themselves. */
  label?: string;
  kind?: 'plain' | 'accept' | 'warn';
  disabled?: boolean;
}): React.JSX.Element {
  const { kind = 'plain' } = props;
  const look = { plain: '', accept: ' jp-mod-accept', warn: ' jp-mod-warn' }[kind];
  return (
    <button
      type="button"
      className={`jp-Button jp-mod-styled shoal-Button${look}`}
      aria-label={props.label}
      title={props.label}
      disabled={props.disabled ?? false}
      onClick={props.onClick}
    >
      {props.children}
    </button>
  );
}

/** A part that opens and shuts, by mouse and by keyboard. What is shut is not drawn. */
export function Fold(props: {
  title: React.ReactNode;
  open?: boolean;
  onToggle?: (open: boolean) => void;
  children: React.ReactNode;
}): React.JSX.Element {
  const [open, setOpen] = React.useState(props.open ?? false);
  return (
    <details
      className="shoal-Fold"
      open={open}
      onToggle={event => {
        const now = event.currentTarget.open;
        setOpen(now);
        props.onToggle?.(now);
      }}
    >
      <summary>
        <caretRightIcon.react tag="span" className="shoal-Fold-caret" elementSize="normal" />
        <span className="shoal-Fold-title">{props.title}</span>
      </summary>
      {open && props.children}
    </details>
  );
}

export function More({ hidden, trans }: { hidden: number; trans: TranslationBundle }): React.JSX.Element | null {
  return hidden > 0 ? <p className="shoal-More">{trans._n('and %1 more', 'and %1 more', hidden)}</p> : null;
}

/** A control with its label above it. The label is tied to it by id: a choice's options are not part of its name. */
export function Field(props: {
  label: string;
  children: (id: string) => React.ReactElement;
}): React.JSX.Element {
  const id = React.useId();
  return (
    <div className="shoal-Field">
      <label htmlFor={id}>{props.label}</label>
      {props.children(id)}
    </div>
  );
}

/** One of several. */
export function Choice(props: {
  label: string;
  value: string;
  options: readonly (readonly [value: string, label: string])[];
  change: (value: string) => void;
}): React.JSX.Element {
  return (
    <Field label={props.label}>
      {id => (
        <select
          id={id}
          className="jp-mod-styled"
          value={props.value}
          onChange={event => {
            props.change(event.target.value);
          }}
        >
          {props.options.map(([value, label]) => (
            <option key={value} value={value}>
              {label}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

/** A line of text, or a whole number from `least` up if that is given. */
export function TextField(props: {
  label: string;
  value: string;
  change: (value: string) => void;
  placeholder?: string;
  optional?: boolean;
  least?: number;
  search?: boolean;
}): React.JSX.Element {
  const isNumber = props.least !== undefined;
  return (
    <Field label={props.label}>
      {id => (
        <input
          id={id}
          type={isNumber ? 'number' : props.search === true ? 'search' : 'text'}
          className="jp-mod-styled"
          spellCheck={false}
          required={props.optional !== true}
          placeholder={props.placeholder}
          min={props.least}
          step={isNumber ? 1 : undefined}
          value={props.value}
          onChange={event => {
            props.change(event.target.value);
          }}
        />
      )}
    </Field>
  );
}

export function Check(props: {
  label: string;
  checked: boolean;
  change: (checked: boolean) => void;
}): React.JSX.Element {
  return (
    <label className="shoal-Check">
      <input
        type="checkbox"
        checked={props.checked}
        onChange={event => {
          props.change(event.target.checked);
        }}
      />
      <span>{props.label}</span>
    </label>
  );
}

export function Hint({ children }: { children: React.ReactNode }): React.JSX.Element {
  return <p className="shoal-Hint">{children}</p>;
}

/** An action under way, or why it failed. */
export interface IAction {
  readonly busy: boolean;
  readonly failed: string;
  /** Run it, unless one runs. */
  run(action: () => Promise<unknown>): void;
  clear(): void;
}

export function useAction(): IAction {
  const [busy, setBusy] = React.useState(false);
  const [failed, setFailed] = React.useState('');
  const mounted = useMounted();
  return {
    busy,
    failed,
    run: action => {
      if (busy) {
        return;
      }
      setBusy(true);
      setFailed('');
      action()
        .catch((reason: unknown) => {
          if (mounted.current) {
            setFailed(reason instanceof Error ? reason.message : String(reason));
          }
        })
        .finally(() => {
          if (mounted.current) {
            setBusy(false);
          }
        });
    },
    clear: () => {
      setFailed('');
    }
  };
}

function useMounted(): React.RefObject<boolean> {
  const mounted = React.useRef(true);
  React.useEffect(() => {
    mounted.current = true;
    return () => {
      mounted.current = false;
    };
  }, []);
  return mounted;
}

/** Why an action failed, in the server's words. */
export function Failure({ action }: { action: IAction }): React.JSX.Element | null {
  return action.failed ? (
    <p className="shoal-Failure" role="alert">
      {action.failed}
    </p>
  ) : null;
}

/** A button that asks before it does what cannot be undone. */
export function AskingButton(props: {
  label: string;
  /** For screen readers, as many buttons of one kind are in the panel. */
  about: string;
  question: string;
  yes: string;
  no: string;
  disabled?: boolean;
  onYes: () => void;
}): React.JSX.Element {
  const [asking, setAsking] = React.useState(false);
  const first = React.useRef<HTMLDivElement>(null);
  React.useEffect(() => {
    if (asking) {
      first.current?.querySelector('button')?.focus();
    }
  }, [asking]);
  if (!asking) {
    return (
      <TextButton
        label={props.about}
        disabled={props.disabled ?? false}
        onClick={() => {
          setAsking(true);
        }}
      >
        {props.label}
      </TextButton>
    );
  }
  return (
    <div className="shoal-Ask" role="group" aria-label={props.question} ref={first}>
      <p>{props.question}</p>
      <TextButton
        onClick={() => {
          setAsking(false);
        }}
      >
        {props.no}
      </TextButton>
      <TextButton
        kind="warn"
        onClick={() => {
          setAsking(false);
          props.onYes();
        }}
      >
        {props.yes}
      </TextButton>
    </div>
  );
}

/**
 * What a question to the server gives while it is shown; asked again when `key` or `count` changes.
 *
 * `count` may change all the time (it is how much of something there is), so it is followed at most every `pause`
 * milliseconds; a new `key` (it is what the question is about) forgets the answer to the old one.
 */
export function useAnswer<T>(
  ask: (() => Promise<T>) | null,
  key: string,
  count = 0,
  pause = 3000
): { value: T | null; failed: string } {
  const [answer, setAnswer] = React.useState<{ key: string; value: T | null; failed: string }>({
    key,
    value: null,
    failed: ''
  });
  const asking = React.useRef(ask);
  asking.current = ask;
  const last = React.useRef({ key: '', time: 0 });
  const wanted = ask !== null;
  React.useEffect(() => {
    if (!wanted) {
      return undefined;
    }
    let current = true;
    const now = Date.now();
    const wait = last.current.key === key ? Math.max(0, last.current.time + pause - now) : 0;
    const timer = setTimeout(() => {
      last.current = { key, time: Date.now() };
      asking.current?.().then(
        value => {
          if (current) {
            setAnswer({ key, value, failed: '' });
          }
        },
        (reason: unknown) => {
          if (current) {
            const failed = reason instanceof Error ? reason.message : String(reason);
            setAnswer(old => ({ key, value: old.key === key ? old.value : null, failed }));
          }
        }
      );
    }, wait);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [wanted, key, count, pause]);
  return answer.key === key ? answer : { value: null, failed: '' };
}

/** The time in seconds, anew every second while `running`. */
export function useNow(running: boolean): number {
  const [now, setNow] = React.useState(() => Date.now() / 1000);
  React.useEffect(() => {
    if (!running) {
      return undefined;
    }
    setNow(Date.now() / 1000);
    const timer = setInterval(() => {
      setNow(Date.now() / 1000);
    }, 1000);
    return () => {
      clearInterval(timer);
    };
  }, [running]);
  return now;
}
