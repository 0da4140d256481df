import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import { isAnswer, isRecord } from './model.ts';
import { LookError } from './store.ts';

/** An action that the server refused or could not do, in words for the user. */
export class ActionError extends Error {
  constructor(
    message: string,
    readonly status: number
  ) {
    super(message);
    this.name = 'ActionError';
  }
}

type Query = Readonly<Record<string, string | number | undefined>>;

export type Verb = 'GET' | 'POST' | 'PATCH' | 'DELETE';

/** The server extension's REST interface, under the server's own address only. */
export class Api {
  constructor(private readonly _settings: ServerConnection.ISettings) {}

  /** Open the websocket on which the server tells what changes. */
  openLine(): WebSocket {
    const { wsUrl, token, appendToken, WebSocket: Socket } = this._settings;
    const url = URLExt.join(wsUrl, 'shoal', 'api', 'v1', 'live');
    return new Socket(appendToken && token ? `${url}?token=${encodeURIComponent(token)}` : url);
  }

  /** The address of something to open or to download. */
  url(...path: string[]): string {
    const parts = path.map(part => encodeURIComponent(part));
    return URLExt.join(this._settings.baseUrl, 'shoal', 'api', 'v1', ...parts);
  }

  /** List the clusters of this user; rejects with a `LookError`. */
  async list(): Promise<readonly Record<string, unknown>[]> {
    const url = this.url('clusters');
    let response: Response;
    try {
      response = await ServerConnection.makeRequest(url, { cache: 'no-store' }, this._settings);
    } catch (reason) {
      throw new LookError({ kind: 'no-answer', detail: String(reason) });
    }
    if (response.status === 404) {
      throw new LookError({ kind: 'not-enabled', detail: url });
    }
    if (response.status === 401 || response.status === 403) {
      throw new LookError({ kind: 'not-allowed', detail: String(response.status) });
    }
    const body: unknown = await response.json().catch(() => null);
    if (!response.ok || !isAnswer(body)) {
      throw new LookError({ kind: 'bad-answer', detail: String(response.status) });
    }
    return body.clusters;
  }

  /**
   * Ask for something, or have something done.
   *
   * @param path the parts of the path below `shoal/api/v1`
   * @throws ActionError in the server's own words where it has some
   */
  async send(verb: Verb, path: readonly string[], body?: object, query: Query = {}): Promise<unknown> {
    const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== '');
    const search = given.map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`).join('&');
    const url = this.url(...path) + (search ? `?${search}` : '');
    const init: RequestInit = { method: verb, cache: 'no-store' };
    if (body !== undefined) {
      init.body = JSON.stringify(body);
    }
    const response = await ServerConnection.makeRequest(url, init, this._settings);
    const text = await response.text();
    let answer: unknown = null;
    try {
      answer = text ? JSON.parse(text) : null;
    } catch {
      // a proxy's page, or none: the status says what there is to say
    }
    if (!response.ok) {
      const said = isRecord(answer) && typeof answer.message === 'string' ? answer.message : '';
      throw new ActionError(said || `${response.status} ${response.statusText}`.trim(), response.status);
    }
    return answer;
  }
}
