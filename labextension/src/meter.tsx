import React from 'react';

import { formatPercent } from './format';

/** From here on a meter that warns is drawn as nearly full. */
const NEARLY_FULL = 0.9;

export interface IMeterProps {
  label: string;
  /** 0 to 1. */
  value: number;
  /** The figures behind the bar; read out together with the percentage. */
  text: string;
  /** Whether nearly full is a danger, as it is for memory, rather than good use, as it is for CPUs. */
  warn: boolean;
}

/** A labelled bar: the words say all that length and colour do. */
export function Meter({ label, value, text, warn }: IMeterProps): React.JSX.Element {
  const percent = formatPercent(value);
  return (
    <div className="shoal-Meter">
      <span className="shoal-Meter-label" aria-hidden="true">
        {label}
      </span>
      <div
        className="shoal-Meter-track"
        role="meter"
        aria-label={label}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round(100 * value)}
        aria-valuetext={`${percent}, ${text}`}
        data-level={warn && value >= NEARLY_FULL ? 'high' : 'normal'}
      >
        <div className="shoal-Meter-fill" style={{ width: `${100 * value}%` }} />
      </div>
      <span className="shoal-Meter-percent" aria-hidden="true">
        {percent}
      </span>
      <span className="shoal-Meter-text" aria-hidden="true">
        {text}
      </span>
    </div>
  );
}
