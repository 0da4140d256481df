/** What has changed from one snapshot to the next: the reading half of `shoal/observe/deltas.py`. */

/** The tables of a snapshot, and the field of their rows that tells them apart. */
export const KEYS: ReadonlyMap<string, string> = new Map([
  ['nodes', 'id'],
  ['functions', 'name'],
  ['cells', 'id'],
  ['actors', 'id'],
  ['groups', 'id'],
  ['owners', 'id'],
  ['waiting', 'id'],
  ['events', 'number'],
  ['history', 'time']
]);

type Row = Readonly<Record<string, unknown>>;

interface ITableChange {
  readonly changed?: readonly Row[];
  readonly gone?: readonly unknown[];
  readonly order?: readonly unknown[];
}

/**
 * The snapshot after a delta; what was before is left as it is, and rows that did not change are shared.
 *
 * Raises `Error` if the delta is not one to this snapshot.
 */
export function apply<T extends object>(old: T, delta: Readonly<Record<string, unknown>>): T {
  const result = { ...old } as Record<string, unknown>;
  for (const [name, change] of Object.entries(delta)) {
    const key = KEYS.get(name);
    const before = result[name];
    if (key === undefined || Array.isArray(change)) {
      result[name] = change;
    } else if (Array.isArray(before)) {
      result[name] = applyToTable(before as Row[], change as ITableChange, key);
    } else {
      throw new Error(`a change of “${name}” came before its rows`);
    }
  }
  return result as T;
}

function applyToTable(old: readonly Row[], change: ITableChange, key: string): Row[] {
  const rows = new Map(old.map(row => [row[key], row]));
  for (const name of change.gone ?? []) {
    rows.delete(name);
  }
  for (const row of change.changed ?? []) {
    rows.set(row[key], { ...rows.get(row[key]), ...row });
  }
  if (change.order === undefined) {
    return [...rows.values()];
  }
  return change.order.map(name => {
    const row = rows.get(name);
    if (row === undefined) {
      throw new Error(`the order names the row ${String(name)}, which is not there`);
    }
    return row;
  });
}
