/** Numbers as people read them. Pure, and nothing is imported. */

/** `part / whole` held between 0 and 1; 0 where there is no whole. */
export function ratio(part: number, whole: number): number {
  return whole > 0 && Number.isFinite(part) ? Math.min(1, Math.max(0, part / whole)) : 0;
}

export function formatPercent(value: number): string {
  return `${Math.round(100 * Math.min(1, Math.max(0, value)))} %`;
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;

/** Three digits at most, in the unit in which they are readable: `1.12 GiB`. */
export function formatBytes(nbytes: number): string {
  let value = Math.max(0, nbytes);
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${UNITS[unit] ?? 'B'}`;
}

/** `2`, `0.5`: CPUs may be parts of one, and `2.0` says no more than `2`. */
export function formatNumber(value: number): string {
  return String(Math.round(value * 100) / 100);
}

/** Counts and rates that must stay narrow: `950`, `1.2k`, `12k`, `3.4M`. */
export function formatShort(value: number): string {
  for (const [size, unit] of [
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k']
  ] as const) {
    if (value >= 0.9995 * size) {
      const scaled = value / size;
      return `${scaled >= 9.95 ? Math.round(scaled) : Math.round(scaled * 10) / 10}${unit}`;
    }
  }
  return value >= 9.95 ? String(Math.round(value)) : String(Math.round(value * 10) / 10);
}

/** `0.25 s`, `42 s`, `3 min 5 s`, `2 h 4 min`, `3 d 2 h`. */
export function formatSeconds(seconds: number): string {
  const value = Math.max(0, seconds);
  if (value < 9.95) {
    return `${Math.round(value * 100) / 100} s`;
  }
  const whole = Math.round(value);
  for (const [size, unit, part, small] of [
    [86_400, 'd', 3600, 'h'],
    [3600, 'h', 60, 'min'],
    [60, 'min', 1, 's']
  ] as const) {
    if (whole >= size) {
      const rest = Math.floor((whole % size) / part);
      return `${Math.floor(whole / size)} ${unit}${rest > 0 ? ` ${rest} ${small}` : ''}`;
    }
  }
  return `${whole} s`;
}

/** The points of a curve within `width` by `height`, the newest at the right edge; `top` is the value at the upper edge. */
export function curve(values: readonly number[], top: number, width: number, height: number): string {
  const step = width / Math.max(1, values.length - 1);
  return values
    .map((value, index) => {
      const y = height - height * ratio(value, top);
      return `${Math.round(index * step * 10) / 10},${Math.round(y * 10) / 10}`;
    })
    .join(' ');
}
