/** Reads what the server extension answers to questions about one cluster. Pure; what cannot be read is left out. */

import { isRecord } from './model.ts';

/** A task or call that has not ended. */
export interface IPending {
  task_id: string;
  object_id: string;
  kind: string;
  function: string;
  cell: string;
  state: string;
  submitted: number;
  attempt: number;
  executor: string;
}

/** Errors of one function in one cell that say the same. */
export interface IFailure {
  cell: string;
  function: string;
  count: number;
  summary: string;
  traceback: string;
}

/** One value in an object store. */
export interface IObject {
  object_id: string;
  nbytes: number;
  where: string;
  nodes: string[];
  made_by: string;
  cell: string;
  owner: string;
  held_by: string[];
}

export interface IExecutor {
  id: string;
  node: string;
  actor: string;
  state: string;
  function: string;
}

export interface ILogLine {
  time: number;
  stream: string;
  text: string;
  task_id: string;
  function: string;
  cell: string;
  actor: string;
}

export interface ILogPage {
  lines: ILogLine[];
  /** Where the next page begins. */
  offset: number;
}

/** Why something is not ready, and why what it waits for is not. */
export interface IExplanation {
  subject: string;
  state: string;
  detail: string;
  advice: string;
  causes: IExplanation[];
}

export interface ISpec {
  name: string;
  /** What it starts, or where; "" if unknown. */
  what: string;
  /** What is wrong with its file; "" for nothing. */
  problem: string;
}

type Row = Record<string, unknown>;

/**
 * The rows of an answer: of a list, or of the list that an answer holds as its only one.
 *
 * Rows are objects, or lists of values in the order of `columns`, as they come from the cluster.
 */
export function rowsOf(answer: unknown, columns: readonly string[]): Row[] {
  const lists = isRecord(answer) ? Object.values(answer).filter(Array.isArray) : [answer];
  const list: unknown = lists[0];
  if (!Array.isArray(list)) {
    return [];
  }
  return list.flatMap((row: unknown) => {
    if (isRecord(row)) {
      return [row];
    }
    return Array.isArray(row)
      ? [Object.fromEntries(columns.map((name, index) => [name, row[index] as unknown]))]
      : [];
  });
}

function text(row: Row, ...names: string[]): string {
  for (const name of names) {
    const value = row[name];
    if (typeof value === 'string') {
      return value;
    }
  }
  return '';
}

function number(row: Row, ...names: string[]): number {
  for (const name of names) {
    const value = row[name];
    if (typeof value === 'number' && Number.isFinite(value)) {
      return value;
    }
  }
  return 0;
}

function texts(row: Row, name: string): string[] {
  const value = row[name];
  return Array.isArray(value) ? value.filter((one: unknown): one is string => typeof one === 'string') : [];
}

const PENDING = [
  'task_id',
  'object_id',
  'kind',
  'function',
  'cell',
  'state',
  'submitted',
  'attempt',
  'executor'
];

export function readPending(answer: unknown): IPending[] {
  return rowsOf(answer, PENDING).map(row => ({
    task_id: text(row, 'task_id'),
    object_id: text(row, 'object_id'),
    kind: text(row, 'kind'),
    function: text(row, 'function'),
    cell: text(row, 'cell'),
    state: text(row, 'state'),
    submitted: number(row, 'submitted'),
    attempt: number(row, 'attempt'),
    executor: text(row, 'executor')
  }));
}

export function readFailures(answer: unknown): IFailure[] {
  return rowsOf(answer, ['function', 'count', 'summary', 'traceback']).map(row => ({
    cell: text(row, 'cell'),
    function: text(row, 'function'),
    count: number(row, 'count'),
    summary: text(row, 'summary', 'error', 'error_summary'),
    traceback: text(row, 'traceback', 'traceback_text')
  }));
}

const OBJECT = ['object_id', 'nbytes', 'where', 'nodes', 'made_by', 'cell', 'owner', 'held_by', 'mapped'];

/** The objects of a report; the largest first. */
export function readMemory(answer: unknown): IObject[] {
  const list = isRecord(answer) && Array.isArray(answer.objects) ? answer.objects : answer;
  return rowsOf(list, OBJECT)
    .map(row => ({
      object_id: text(row, 'object_id', 'id'),
      nbytes: number(row, 'nbytes'),
      where: text(row, 'where'),
      nodes: texts(row, 'nodes'),
      made_by: text(row, 'made_by'),
      cell: text(row, 'cell'),
      owner: text(row, 'owner'),
      held_by: texts(row, 'held_by')
    }))
    .sort((a, b) => b.nbytes - a.nbytes);
}

export function readExecutors(answer: unknown): IExecutor[] {
  return rowsOf(answer, ['id', 'node', 'actor', 'state', 'function'])
    .map(row => ({
      id: text(row, 'id', 'executor', 'executor_id'),
      node: text(row, 'node', 'node_id'),
      actor: text(row, 'actor', 'actor_id', 'actor_name'),
      state: text(row, 'state'),
      function: text(row, 'function')
    }))
    .filter(row => row.id !== '');
}

const LINE = ['time', 'stream', 'text', 'task_id', 'function', 'cell', 'actor'];

/** A page of a log, from `{lines, offset}`, from a pair of these, or from plain text. */
export function readLog(answer: unknown, before: number): ILogPage {
  const [content, next]: [unknown, unknown] = Array.isArray(answer)
    ? [answer[0] as unknown, answer[1] as unknown]
    : isRecord(answer)
      ? [answer.lines ?? answer.text, answer.next ?? answer.offset]
      : [answer, null];
  const offset = typeof next === 'number' ? next : before;
  const list =
    typeof content === 'string' ? content.split('\n').filter(Boolean) : Array.isArray(content) ? content : [];
  const lines = list.map((line: unknown) => {
    const row = typeof line === 'string' ? { text: line } : (rowsOf([line], LINE)[0] ?? {});
    return {
      time: number(row, 'time'),
      stream: text(row, 'stream'),
      text: text(row, 'text'),
      task_id: text(row, 'task_id'),
      function: text(row, 'function'),
      cell: text(row, 'cell'),
      actor: text(row, 'actor')
    };
  });
  return { lines, offset };
}

const EXPLANATION = ['subject', 'state', 'detail', 'advice', 'causes'];

export function readExplanation(answer: unknown): IExplanation | null {
  const held = isRecord(answer) && 'explanation' in answer ? answer.explanation : answer;
  const row = rowsOf([held], EXPLANATION)[0];
  if (row === undefined || text(row, 'subject') === '') {
    return null;
  }
  const causes = Array.isArray(row.causes) ? row.causes : [];
  return {
    subject: text(row, 'subject'),
    state: text(row, 'state'),
    detail: text(row, 'detail'),
    advice: text(row, 'advice'),
    causes: causes.map(readExplanation).filter(cause => cause !== null)
  };
}

/** The named specs, without the server's own `local`: the form has its own words for that. */
export function readSpecs(answer: unknown): ISpec[] {
  const rows = rowsOf(answer, ['name']).filter(row => row.name !== 'local');
  return rows.map(row => {
    const about = isRecord(row.spec) ? row.spec : row;
    return {
      name: text(row, 'name'),
      what: text(row, 'description') || text(about, 'cluster_class') || text(about, 'address'),
      problem: text(row, 'problem', 'message')
    };
  });
}

/** What one cell or variable keeps in the stores. */
export interface IHolding<T = IObject> {
  cell: string;
  holder: string;
  nbytes: number;
  count: number;
  objects: T[];
}

/** Objects summed up by the cell they came from and by who holds them first; the largest first. */
export function groupObjects<T extends IObject>(objects: readonly T[]): IHolding<T>[] {
  const groups = new Map<string, IHolding<T>>();
  for (const one of objects) {
    const holder = one.held_by[0] ?? one.made_by;
    const key = `${one.cell}\0${holder}`;
    const group = groups.get(key) ?? { cell: one.cell, holder, nbytes: 0, count: 0, objects: [] };
    group.nbytes += one.nbytes;
    group.count += 1;
    group.objects.push(one);
    groups.set(key, group);
  }
  return [...groups.values()].sort((a, b) => b.nbytes - a.nbytes);
}
