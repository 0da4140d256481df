/**
 * How functions are told apart in the task grid: by colour and by pattern, so that neither is needed alone.
 *
 * The colours are those of Okabe and Ito ("Color Universal Design", 2008) without black, which a dark page hides.
 */

export const COLOURS = [
  '#0072b2',
  '#e69f00',
  '#009e73',
  '#cc79a7',
  '#56b4e9',
  '#d55e00',
  '#f0e442'
] as const;

export const PATTERNS = ['plain', 'stripes', 'dots', 'bars'] as const;

export interface IMark {
  colour: string;
  pattern: (typeof PATTERNS)[number];
}

/** Functions that have no mark of their own share this one. */
export const OTHERS: IMark = { colour: '#8c8c8c', pattern: 'plain' };

/** Gives each function a mark that it keeps; neighbours in the order of coming differ in both. */
export class Palette {
  /** Functions told apart at most. */
  static readonly SIZE = COLOURS.length * PATTERNS.length;

  mark(name: string): IMark {
    const known = this._marks.get(name);
    if (known !== undefined) {
      return known;
    }
    const index = this._marks.size;
    if (index >= Palette.SIZE) {
      return OTHERS;
    }
    // 7 and 4 have no common divisor: all pairs come once before any comes twice
    const mark = {
      colour: COLOURS[index % COLOURS.length] ?? OTHERS.colour,
      pattern: PATTERNS[index % PATTERNS.length] ?? OTHERS.pattern
    };
    this._marks.set(name, mark);
    return mark;
  }

  private readonly _marks = new Map<string, IMark>();
}
