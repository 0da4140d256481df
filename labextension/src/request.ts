import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import { isAnswer, type ICluster, type IProblem } from './model';

/** A look at the clusters that failed, with the reason in the panel's terms. */
export class LookError extends Error {
  constructor(readonly problem: IProblem) {
    super(problem.detail);
    this.name = 'LookError';
  }
}

/**
 * Ask the server extension for this user's clusters.
 *
 * `ServerConnection` adds token and XSRF cookie; nothing but the server's own address is ever asked.
 */
export async function fetchClusters(settings: ServerConnection.ISettings): Promise<ICluster[]> {
  const url = URLExt.join(settings.baseUrl, 'shoal', 'api', 'v1', 'clusters');
  let response: Response;
  try {
    response = await ServerConnection.makeRequest(url, { cache: 'no-store' }, settings);
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
