import { LabIcon } from '@jupyterlab/ui-components';

import shoalSvg from '../style/icons/shoal.svg';

/** Three fish that swim the same way. */
export const shoalIcon = new LabIcon({ name: 'shoal:shoal', svgstr: shoalSvg });
