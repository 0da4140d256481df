/** Where a cell runs, as its metadata says: `{"shoal": {"remote": "--on all"}}`, see `shoal_kernel/placing.py`. */

import { isRecord } from './model.ts';

/** The key in a cell's metadata, and in what is there. */
export const KEY = 'shoal';
export const REMOTE = 'remote';

/** The options of `%%remote` that a cell's metadata gives; null for a cell that runs in the notebook. */
export function optionsOf(metadata: unknown): string | null {
  const about = isRecord(metadata) ? metadata[KEY] : undefined;
  const line = isRecord(about) ? about[REMOTE] : undefined;
  return typeof line === 'string' ? line : null;
}

/** What is to stand under `KEY` for these options, with whatever else stands there; undefined for nothing. */
export function withOptions(about: unknown, options: string | null): Record<string, unknown> | undefined {
  const others = Object.entries(isRecord(about) ? about : {}).filter(([name]) => name !== REMOTE);
  const result = Object.fromEntries(options === null ? others : [...others, [REMOTE, options.trim()]]);
  return Object.keys(result).length > 0 ? result : undefined;
}

/** Tell whether the first line of a cell is a magic of cells: it decides, and the metadata does not. */
export function hasMagic(source: string): boolean {
  return source.trimStart().startsWith('%%');
}

/** The options of a `%%remote` line; null for a cell without one. */
export function optionsInSource(source: string): string | null {
  const match = /^%%remote\b[ \t]*(.*)/.exec(source.trimStart());
  return match === null ? null : (match[1] ?? '').trim();
}

/** Tell whether a kernel hands metadata on: ipykernel from 7.3 and IPython from 9.16 do. */
export function isSupported(kernel: {
  implementation: string;
  implementation_version: string;
  banner: string;
}): boolean {
  const ipython = /IPython (\d+)\.(\d+)/.exec(kernel.banner);
  return (
    kernel.implementation === 'ipython' &&
    isAtLeast(/^(\d+)\.(\d+)/.exec(kernel.implementation_version), 7, 3) &&
    isAtLeast(ipython, 9, 16)
  );
}

function isAtLeast(match: RegExpExecArray | null, major: number, minor: number): boolean {
  const [first, second] = [Number(match?.[1] ?? 0), Number(match?.[2] ?? 0)];
  return first > major || (first === major && second >= minor);
}
