import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget, addIcon, caretRightIcon, closeIcon, refreshIcon } from '@jupyterlab/ui-components';
import React from 'react';

import { formatSeconds } from './format';
import { shoalIcon } from './icons';
import { displayName, isStale, type ICluster, type INotice, type IProblem } from './model';
import type { OpenSections } from './openSections';
import { IconButton, TextButton, useNow } from './parts';
import type { IPanelSection, IPanelSections, ISectionProps } from './sections';
import type { IClusterStore } from './store';
import { newsOf, type IAudible } from './work';

/** Milliseconds between two things that are read out. */
const QUIET_MS = 10_000;

export interface IPanelOptions {
  store: IClusterStore;
  sections: IPanelSections;
  open: OpenSections;
  send: ISectionProps['send'];
  url: ISectionProps['url'];
  trans: TranslationBundle;
  /** Put the starting cell into a notebook. */
  insertStart: () => void;
  refresh: () => void;
}

/** The sidebar panel: every cluster of this user, wherever it was started, and what the one chosen does. */
export class ClusterPanel extends ReactWidget {
  static readonly id = 'shoal-panel';

  constructor(private readonly _options: IPanelOptions) {
    super();
    const { store, sections, open, trans } = _options;
    this.id = ClusterPanel.id;
    this.addClass('shoal-Panel');
    this.title.icon = shoalIcon;
    this.title.caption = trans.__('Shoal Clusters');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', this.title.caption);
    const draw = (): void => {
      // lumino draws once for all that happens before the next frame
      this.update();
    };
    store.changed.connect(draw, this);
    sections.changed.connect(draw, this);
    open.changed.connect(draw, this);
  }

  protected override onAfterShow(): void {
    this._watch();
  }

  protected override onAfterHide(): void {
    this._unwatch();
  }

  protected override onBeforeDetach(): void {
    this._unwatch();
  }

  protected override render(): React.JSX.Element {
    return <PanelBody {...this._options} />;
  }

  private _watch(): void {
    if (!this._watching) {
      this._watching = true;
      this._options.store.watch();
      // what a button may do can have changed while nobody looked
      this.update();
    }
  }

  private _unwatch(): void {
    if (this._watching) {
      this._watching = false;
      this._options.store.unwatch();
    }
  }

  private _watching = false;
}

function PanelBody(options: IPanelOptions): React.JSX.Element {
  const { store, sections, open, send, url, trans, insertStart, refresh } = options;
  const { clusters, problem, loaded, notices } = store.state;
  const { cluster } = store;
  const props: ISectionProps = { cluster, store, send, url, trans };
  const hasTold = (cluster?.snapshot ?? null) !== null;
  const nothing = problem !== null && clusters.length === 0;
  const shown = sections.all.filter(
    section => !nothing && open.isShown(section.id) && (section.always === true || hasTold)
  );
  return (
    <>
      <div className="shoal-Panel-header">
        <h2>{trans.__('Shoal')}</h2>
        <IconButton icon={addIcon} label={trans.__('Insert a cell that starts a cluster')} onClick={insertStart} />
        <IconButton icon={refreshIcon} label={trans.__('Refresh the list of clusters')} onClick={refresh} />
      </div>
      <Announcer cluster={cluster} clusters={clusters} quiet={!loaded || problem !== null} trans={trans} />
      <div className="shoal-Panel-content">
        {problem && <Problem problem={problem} stale={clusters.length > 0} refresh={refresh} trans={trans} />}
        {notices.map(notice => (
          <Notice key={notice.number} notice={notice} clusters={clusters} store={store} trans={trans} />
        ))}
        <Accordion sections={shown} open={open} props={props} />
      </div>
    </>
  );
}

/** Says what a screen reader's user must know, and only now and then: not each figure at each look. */
function Announcer(props: {
  cluster: ICluster | null;
  clusters: readonly ICluster[];
  quiet: boolean;
  trans: TranslationBundle;
}): React.JSX.Element {
  const { cluster, clusters, quiet, trans } = props;
  const [said, setSaid] = React.useState('');
  const told = React.useRef<IAudible | null>(null);
  const last = React.useRef(0);
  const failed = cluster?.snapshot?.tasks.failed ?? 0;
  const count = clusters.length;
  const state = cluster ? `${cluster.id} ${cluster.state}` : '';
  React.useEffect(() => {
    if (quiet) {
      return undefined;
    }
    const timer = setTimeout(
      () => {
        const now = { clusters: count, failed, state };
        const news = newsOf(told.current, now);
        if (news.length === 0) {
          return;
        }
        const words = [
          news.includes('clusters') ? trans._n('%1 cluster', '%1 clusters', count) : '',
          news.includes('state') && cluster?.state === 'ended'
            ? trans.__('%1 has ended', displayName(cluster))
            : '',
          news.includes('failed') ? trans._n('%1 failed task', '%1 failed tasks', failed) : ''
        ];
        told.current = now;
        last.current = Date.now();
        setSaid(words.filter(Boolean).join(', '));
      },
      Math.max(0, last.current + QUIET_MS - Date.now())
    );
    return () => {
      clearTimeout(timer);
    };
    // the cluster itself changes all the time: what is said of it depends on its state
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [quiet, count, failed, state, trans]);
  return (
    <div role="status" className="shoal-VisuallyHidden">
      {quiet ? '' : said}
    </div>
  );
}

/** The sections, one heading in the tab order; arrow keys go from heading to heading. */
function Accordion(props: {
  sections: readonly IPanelSection[];
  open: OpenSections;
  props: ISectionProps;
}): React.JSX.Element {
  const { sections, open } = props;
  const [focus, setFocus] = React.useState(0);
  const root = React.useRef<HTMLDivElement>(null);
  const current = Math.min(focus, sections.length - 1);
  const onKeyDown = (event: React.KeyboardEvent): void => {
    const target = event.target as HTMLElement;
    if (!target.classList.contains('shoal-Section-button')) {
      return;
    }
    const last = sections.length - 1;
    const steps: Readonly<Record<string, number>> = {
      ArrowDown: current === last ? 0 : current + 1,
      ArrowUp: current === 0 ? last : current - 1,
      Home: 0,
      End: last
    };
    const next = steps[event.key];
    if (next !== undefined) {
      event.preventDefault();
      setFocus(next);
      root.current?.querySelectorAll<HTMLElement>('.shoal-Section-button')[next]?.focus();
    }
  };
  return (
    <div ref={root} className="shoal-Sections" onKeyDown={onKeyDown}>
      {sections.map((section, index) => (
        <Section
          key={section.id}
          section={section}
          isOpen={open.isOpen(section)}
          inTabOrder={index === current}
          toggle={() => {
            setFocus(index);
            open.set(section.id, !open.isOpen(section));
          }}
          props={props.props}
        />
      ))}
    </div>
  );
}

function Section(sectionProps: {
  section: IPanelSection;
  isOpen: boolean;
  inTabOrder: boolean;
  toggle: () => void;
  props: ISectionProps;
}): React.JSX.Element {
  const { section, isOpen, inTabOrder, toggle, props } = sectionProps;
  const { trans } = props;
  const id = `shoal-section-${section.id}`;
  const stale = section.always === true || props.cluster === null || !isStale(props.cluster) ? null : props.cluster;
  return (
    <section className="shoal-Section" aria-labelledby={`${id}-heading`} data-open={isOpen}>
      <h3>
        <button
          type="button"
          id={`${id}-heading`}
          className="shoal-Section-button"
          aria-expanded={isOpen}
          aria-controls={`${id}-body`}
          tabIndex={inTabOrder ? 0 : -1}
          onClick={toggle}
        >
          <caretRightIcon.react tag="span" className="shoal-Section-caret" elementSize="normal" />
          <span className="shoal-Section-title">{section.title}</span>
          <span className="shoal-Section-badge">
            <Guard trans={trans} quiet={true} draw={() => <>{section.badge?.(props) ?? ''}</>} />
          </span>
        </button>
      </h3>
      <div id={`${id}-body`} className="shoal-Section-body" hidden={!isOpen}>
        {isOpen && (
          <>
            {stale && <Stale cluster={stale} trans={trans} />}
            <Guard trans={trans} draw={() => section.render(props)} />
          </>
        )}
      </div>
    </section>
  );
}

interface IGuardProps {
  draw: () => React.ReactElement | null;
  trans: TranslationBundle;
  quiet?: boolean;
}

/** A section that cannot be drawn says so; the others go on. */
class Guard extends React.Component<IGuardProps, { failed: string }> {
  static getDerivedStateFromError(error: unknown): { failed: string } {
    return { failed: error instanceof Error ? error.message : String(error) };
  }

  override state = { failed: '' };

  override render(): React.ReactNode {
    const { draw, trans, quiet } = this.props;
    if (this.state.failed) {
      return quiet ? null : (
        <p className="shoal-Failure" role="alert">
          {trans.__('This part cannot be shown: %1', this.state.failed)}
        </p>
      );
    }
    // as an element of its own, so that what fails in it fails below this guard
    return <Drawn draw={draw} />;
  }
}

function Drawn({ draw }: { draw: () => React.ReactElement | null }): React.ReactElement | null {
  return draw();
}

function Stale({ cluster, trans }: { cluster: ICluster; trans: TranslationBundle }): React.JSX.Element {
  const now = useNow(true);
  const age = formatSeconds(Math.max(0, Math.round(now - cluster.seen)));
  return <p className="shoal-Stale">{trans.__('“%1” as it was %2 ago.', displayName(cluster), age)}</p>;
}

function Notice(props: {
  notice: INotice;
  clusters: readonly ICluster[];
  store: IClusterStore;
  trans: TranslationBundle;
}): React.JSX.Element {
  const { notice, clusters, store, trans } = props;
  const cluster = clusters.find(one => one.id === notice.cluster);
  return (
    <div className="shoal-Notice" role="status" data-level={notice.level}>
      <p>
        <span aria-hidden="true">{notice.level === 'warning' ? '⚠ ' : 'ⓘ '}</span>
        {cluster && clusters.length > 1 ? `${displayName(cluster)}: ` : ''}
        {notice.message}
      </p>
      <IconButton
        icon={closeIcon}
        label={trans.__('Dismiss')}
        onClick={() => {
          store.dismiss(notice.number);
        }}
      />
    </div>
  );
}

function Problem(props: {
  problem: IProblem;
  stale: boolean;
  refresh: () => void;
  trans: TranslationBundle;
}): React.JSX.Element {
  const { problem, stale, refresh, trans } = props;
  const [title, advice] = explain(problem, trans);
  return (
    <div className="shoal-Problem" role="alert" title={problem.detail}>
      <p className="shoal-Problem-title">{title}</p>
      <p>{advice}</p>
      {stale && <p>{trans.__('What is shown below was true when the server last answered.')}</p>}
      <TextButton onClick={refresh}>{trans.__('Try again')}</TextButton>
    </div>
  );
}

/** What went wrong and what to do about it. */
function explain(problem: IProblem, trans: TranslationBundle): [string, string] {
  switch (problem.kind) {
    case 'not-enabled':
      return [
        trans.__('The server part of shoal is not enabled'),
        trans.__(
          'Run “jupyter server extension enable shoal_labextension” in the environment of JupyterLab, then restart it.'
        )
      ];
    case 'not-allowed':
      return [
        trans.__('You may not see the clusters of this server'),
        trans.__('Sign in again, or ask for the permission to read “shoal:clusters”.')
      ];
    case 'no-answer':
      return [
        trans.__('The Jupyter server does not answer'),
        trans.__('The panel asks again by itself, at longer and longer intervals.')
      ];
    case 'bad-answer':
      return [
        trans.__('The Jupyter server gave an answer that the panel cannot read'),
        trans.__('Its log says why. After an update of shoal, restart JupyterLab and reload this page.')
      ];
    case 'versions':
      return [
        trans.__('This page and the Jupyter server have different versions of shoal'),
        trans.__(
          'The server has %1. Reload this page; if that does not help, restart JupyterLab.',
          problem.detail
        )
      ];
  }
}
