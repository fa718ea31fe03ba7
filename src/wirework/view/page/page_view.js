// Zoom with the wheel, pan by dragging; a view that was not moved shows the whole drawing.

class View {
  constructor(svg, scene, layout) {
    const { width, height } = layout;
    Object.assign(this, { svg, scene, width, height, scale: 1, x: 0, y: 0, touched: false });
    this.listen();
  }

  listen() {
    this.svg.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = this.svg.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.03 : 0.0015)),
        event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    this.svg.addEventListener("pointerdown", (event) => {
      this.drag = { x: event.clientX - this.x, y: event.clientY - this.y };
      this.start = { x: event.clientX, y: event.clientY };
      this.moved = false;
    });
    addEventListener("pointermove", (event) => {
      if (!this.drag) return;
      const far = Math.hypot(event.clientX - this.start.x, event.clientY - this.start.y);
      if (!this.moved && far < 4) return;
      this.moved = true;
      this.x = event.clientX - this.drag.x;
      this.y = event.clientY - this.drag.y;
      this.touched = true;
      this.place();
    });
    addEventListener("pointerup", () => { this.drag = null; });
    addEventListener("pointercancel", () => { this.drag = null; });
    new ResizeObserver(() => this.touched || this.fit()).observe(this.svg);
  }

  zoom(factor, x = this.svg.clientWidth / 2, y = this.svg.clientHeight / 2) {
    const scale = Math.min(8, Math.max(0.1, this.scale * factor));
    const change = scale / this.scale;
    Object.assign(this, {
      scale, x: x - (x - this.x) * change, y: y - (y - this.y) * change, touched: true,
    });
    this.place();
  }

  resize(height) {
    this.height = height;
    if (!this.touched) this.fit();
  }

  fit() {
    const { width, height } = this;

    const [across, down] = [this.svg.clientWidth, this.svg.clientHeight];
    const scale = Math.min((across - 32) / width, down / height, 1.5);
    if (scale <= 0) return;
    Object.assign(this, {
      scale, x: (across - width * scale) / 2, y: (down - height * scale) / 2, touched: false,
    });
    this.place();
  }

  place() {
    const { scale, x, y } = this;
    this.scene.setAttribute("transform", `translate(${x} ${y}) scale(${scale})`);
  }
}
