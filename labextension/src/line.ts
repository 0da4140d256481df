/**
 * The panel's line to the server: one websocket, opened again when it breaks.
 *
 * Knows nothing of what is said on it, and nothing of the page: socket and timers are given.
 */

/** What is used of a `WebSocket`. */
export interface ISocket {
  onopen: ((event: never) => unknown) | null;
  onmessage: ((event: never) => unknown) | null;
  onclose: ((event: never) => unknown) | null;
  send(text: string): void;
  close(): void;
}

export interface ILineEvents {
  /** The server listens. */
  up(): void;
  text(text: string): void;
  /** It does not, or not any more; `reached` tells whether it did since the last time. */
  down(reached: boolean): void;
}

/** Milliseconds before the first attempt to open it again, and before the later ones at most. */
export const SHORTEST_PAUSE = 500;
export const LONGEST_PAUSE = 30_000;

export class Line {
  constructor(open: () => ISocket, events: ILineEvents, random: () => number = Math.random) {
    this._open = open;
    this._events = events;
    this._random = random;
  }

  get isUp(): boolean {
    return this._isUp;
  }

  /** Open it, unless it is open, or wait no longer to open it again. */
  start(): void {
    clearTimeout(this._timer);
    if (this._socket !== null) {
      return;
    }
    let socket: ISocket;
    try {
      socket = this._open();
    } catch {
      this._lost();
      return;
    }
    this._socket = socket;
    socket.onopen = () => {
      this._isUp = true;
      this._events.up();
    };
    socket.onmessage = (event: { data: unknown }) => {
      // the server has said something: it is worth coming back soon
      this._attempts = 0;
      if (typeof event.data === 'string') {
        this._events.text(event.data);
      }
    };
    socket.onclose = () => {
      this._lost();
    };
  }

  /** Close it and leave it closed. */
  stop(): void {
    clearTimeout(this._timer);
    const socket = this._socket;
    this._socket = null;
    this._isUp = false;
    if (socket !== null) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
  }

  /** Say something, if somebody listens. */
  send(message: object): void {
    if (this._isUp) {
      this._socket?.send(JSON.stringify(message));
    }
  }

  private _lost(): void {
    const reached = this._isUp;
    this._socket = null;
    this._isUp = false;
    const longest = Math.min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** this._attempts);
    this._attempts += 1;
    // many pages that lost one server do not come back at the same moment
    const pause = longest * (0.5 + 0.5 * this._random());
    this._timer = setTimeout(() => {
      this.start();
    }, pause);
    this._events.down(reached);
  }

  private readonly _open: () => ISocket;
  private readonly _events: ILineEvents;
  private readonly _random: () => number;
  private _socket: ISocket | null = null;
  private _isUp = false;
  private _attempts = 0;
  private _timer: ReturnType<typeof setTimeout> | undefined;
}
