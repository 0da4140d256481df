import type { ISocket } from '../src/line.ts';

/** The server's end of a websocket that is none: a test says what it does. */
export class Socket implements ISocket {
  onopen: ((event: never) => unknown) | null = null;
  onmessage: ((event: never) => unknown) | null = null;
  onclose: ((event: never) => unknown) | null = null;
  readonly heard: Record<string, unknown>[] = [];
  closed = false;

  send(text: string): void {
    this.heard.push(JSON.parse(text) as Record<string, unknown>);
  }

  close(): void {
    this.closed = true;
  }

  accept(): void {
    this.onopen?.({} as never);
  }

  say(message: object): void {
    this.onmessage?.({ data: JSON.stringify(message) } as never);
  }

  /** The connection ends, or is refused if it was not accepted. */
  drop(): void {
    this.onclose?.({} as never);
  }
}
