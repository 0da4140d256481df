import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';

import { Choice, Hint, More } from '../parts';
import type { IPanelSection, ISectionProps } from '../sections';
import type { IEvent } from '../snapshot';

const MOST_EVENTS = 100;

export function makeEventsSection(trans: TranslationBundle): IPanelSection {
  return {
    id: 'events',
    title: trans.__('Events'),
    rank: 50,
    badge: ({ cluster }) => {
      const count = cluster?.snapshot?.events.length ?? 0;
      return count > 0 ? count.toLocaleString() : '';
    },
    render: props => <Events {...props} />
  };
}

function Events({ cluster, trans }: ISectionProps): React.JSX.Element {
  const [kind, setKind] = React.useState('');
  const events = cluster?.snapshot?.events ?? [];
  if (events.length === 0) {
    return <Hint>{trans.__('Nothing has happened yet: nodes, actors and drivers that come and go are told here.')}</Hint>;
  }
  const kinds = [...new Set(events.map(event => event.kind))].sort();
  const shown = events.filter(event => kind === '' || event.kind === kind).reverse();
  return (
    <>
      {kinds.length > 1 && (
        <Choice
          label={trans.__('Show')}
          value={kind}
          options={[['', trans.__('all events')], ...kinds.map(one => [one, one] as const)]}
          change={setKind}
        />
      )}
      <ol className="shoal-Events" aria-label={trans.__('Events, the newest first')}>
        {shown.slice(0, MOST_EVENTS).map(event => (
          <EventRow key={event.number} event={event} />
        ))}
      </ol>
      <More hidden={shown.length - MOST_EVENTS} trans={trans} />
    </>
  );
}

const EventRow = React.memo(function EventRow({ event }: { event: IEvent }) {
  const time = new Date(1000 * event.time);
  return (
    <li>
      <time dateTime={time.toISOString()} title={time.toLocaleString()}>
        {time.toLocaleTimeString()}
      </time>{' '}
      <span className="shoal-Tag">{event.kind}</span> {event.text}
    </li>
  );
});
