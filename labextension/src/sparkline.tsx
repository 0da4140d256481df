import React from 'react';

import { curve } from './format';

const WIDTH = 120;
const HEIGHT = 24;

export interface ISparklineProps {
  label: string;
  values: readonly number[];
  /** The value at the upper edge; the greatest one if it is not given. */
  top?: number;
  /** A value as it is read. */
  format: (value: number) => string;
  /** Names the greatest value: `at most 40`. */
  most: (value: string) => string;
}

/** A figure and how it was in the last minutes; the words say what the curve shows. */
export function Sparkline({ label, values, top, format, most }: ISparklineProps): React.JSX.Element {
  const now = values[values.length - 1] ?? 0;
  const greatest = values.reduce((a, b) => Math.max(a, b), 0);
  const points = curve(values, top ?? (greatest || 1), WIDTH, HEIGHT - 2);
  const summary = `${label}: ${format(now)}, ${most(format(greatest))}`;
  return (
    <div className="shoal-Spark">
      <span className="shoal-Spark-label" aria-hidden="true">
        {label}
      </span>
      <svg
        role="img"
        aria-label={summary}
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
        className="shoal-Spark-curve"
      >
        <title>{summary}</title>
        <polygon points={`0,${HEIGHT} ${points} ${WIDTH},${HEIGHT}`} />
        <polyline points={points} vectorEffect="non-scaling-stroke" />
      </svg>
      <span className="shoal-Spark-value" aria-hidden="true">
        {format(now)}
      </span>
    </div>
  );
}
