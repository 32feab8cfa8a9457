// Which elements can be seen, and how large they are: scrolled out of sight, too small a window, another tab in front.

/** An edge that just touches the window is not seen. */
const SEEN_FROM = 0.02;

interface Watched {
  onScreen: boolean;
  width: number;
}

export class Attention {
  readonly #changed: (element: Element, visible: boolean, width: number) => void;
  readonly #watched = new Map<Element, Watched>();
  readonly #intersections: IntersectionObserver;
  readonly #sizes: ResizeObserver;

  /** `changed`: the width is in device pixels; it may be called without a difference. */
  constructor(changed: (element: Element, visible: boolean, width: number) => void) {
    this.#changed = changed;
    this.#intersections = new IntersectionObserver(
      (entries) => {
        for (const { target, intersectionRatio } of entries) this.#note(target, { onScreen: intersectionRatio >= SEEN_FROM });
      },
      { threshold: SEEN_FROM },
    );
    this.#sizes = new ResizeObserver((entries) => {
      for (const { target, contentRect } of entries) this.#note(target, { width: contentRect.width });
    });
    document.addEventListener("visibilitychange", () => {
      for (const element of this.#watched.keys()) this.tell(element);
    });
  }

  /** In device pixels, here and now. */
  static widthOf(element: Element): number {
    return Math.round(element.clientWidth * (window.devicePixelRatio || 1));
  }

  watch(element: Element): void {
    this.#watched.set(element, { onScreen: true, width: element.clientWidth });
    this.#intersections.observe(element);
    this.#sizes.observe(element);
  }

  unwatch(element: Element): void {
    this.#watched.delete(element);
    this.#intersections.unobserve(element);
    this.#sizes.unobserve(element);
  }

  /** Call `changed` for this one, with what is known. */
  tell(element: Element): void {
    const watched = this.#watched.get(element);
    if (!watched) return;
    const width = Math.round(watched.width * (window.devicePixelRatio || 1));
    this.#changed(element, watched.onScreen && !document.hidden, width);
  }

  #note(element: Element, news: Partial<Watched>): void {
    const watched = this.#watched.get(element);
    if (!watched) return;
    Object.assign(watched, news);
    this.tell(element);
  }
}
