"use strict";

const PICK_RADIUS = 16; // Pixels around the pointer within which a point is found.

/** A scatter plot in 2-D or 3-D on a canvas, drawn by WebGL or, without WebGL, by the 2-D context.
 *
 * Dragging moves or turns the plot, arrow keys go from point to point. `onPick(i, x, y)` is called with the index of
 * the selected point and its position on the canvas; -1 if no point is selected.
 */
function scatter(canvas, count, onPick) {
  const positions = new Float32Array(3 * count);
  const colours = new Uint8Array(4 * count); // Alpha 0: hidden.
  const paint = webglPainter(canvas, positions, colours) || plainPainter(canvas, positions, colours);
  let is3d = false, extent = [1, 1], rotation = [0, 0], offset = [0, 0], zoom = 1, picked = -1, scheduled = false;

  function matrix() {
    const width = canvas.clientWidth, height = canvas.clientHeight;
    const unit = 0.92 * zoom * Math.min(width / extent[0], height / extent[1]); // Pixels from -1 to 1.
    const sx = unit / width, sy = unit / height;
    const ca = Math.cos(rotation[0]), sa = Math.sin(rotation[0]);
    const cb = Math.cos(rotation[1]), sb = Math.sin(rotation[1]);
    // Columns; rotated about the vertical axis, then about the horizontal one. Depth stays within -1..1.
    return [
      sx * ca, sy * sa * sb, 0.5 * sa * cb, 0,
      0, sy * cb, -0.5 * sb, 0,
      sx * sa, -sy * ca * sb, -0.5 * ca * cb, 0,
      offset[0], offset[1], 0, 1,
    ];
  }

  function onScreen(m, i) {
    const x = positions[3 * i], y = positions[3 * i + 1], z = positions[3 * i + 2];
    return [
      (0.5 + 0.5 * (m[0] * x + m[4] * y + m[8] * z + m[12])) * canvas.clientWidth,
      (0.5 - 0.5 * (m[1] * x + m[5] * y + m[9] * z + m[13])) * canvas.clientHeight,
    ];
  }

  /** Index of the visible point with the lowest `cost(dx, dy, i)`, where dx and dy are its offsets in pixels. */
  function lowestCost(px, py, cost) {
    const m = matrix();
    let best = -1, lowest = Infinity;
    for (let i = 0; i < count; i++) {
      if (!colours[4 * i + 3]) continue;
      const [x, y] = onScreen(m, i);
      if (x < 0 || y < 0 || x > canvas.clientWidth || y > canvas.clientHeight) continue;
      const value = cost(x - px, y - py, i);
      if (value < lowest) { lowest = value; best = i; }
    }
    return best;
  }

  function draw() {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      const scale = window.devicePixelRatio || 1;
      const width = Math.round(canvas.clientWidth * scale), height = Math.round(canvas.clientHeight * scale);
      if (!width || !height) return;
      if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
      const spacing = Math.sqrt(canvas.clientWidth * canvas.clientHeight / Math.max(count, 300));
      const size = Math.min(9, Math.max(2.6, 0.62 * spacing)) * Math.min(2.5, Math.sqrt(Math.max(zoom, 1)));
      paint(matrix(), size * scale, is3d);
    });
  }

  function pick(i) {
    picked = i;
    onPick(i, ...(i < 0 ? [0, 0] : onScreen(matrix(), i)));
  }

  function nearest(event) {
    const box = canvas.getBoundingClientRect();
    const inRange = (dx, dy) => { const d = dx * dx + dy * dy; return d < PICK_RADIUS * PICK_RADIUS ? d : Infinity; };
    return lowestCost(event.clientX - box.left, event.clientY - box.top, inRange);
  }

  function drag(dx, dy) {
    if (is3d) rotation = [rotation[0] + dx / 160, Math.max(-1.5, Math.min(1.5, rotation[1] + dy / 160))];
    else offset = [offset[0] + 2 * dx / canvas.clientWidth, offset[1] - 2 * dy / canvas.clientHeight];
    pick(-1);
    draw();
  }

  function zoomBy(factor, x = 0, y = 0) {
    const after = Math.min(40, Math.max(0.5, zoom * factor));
    if (!is3d) offset = [x - (x - offset[0]) * after / zoom, y - (y - offset[1]) * after / zoom];
    zoom = after;
    pick(-1);
    draw();
  }

  function reset() {
    rotation = is3d ? [0.6, 0.35] : [0, 0];
    offset = [0, 0];
    zoom = 1;
    pick(-1);
    draw();
  }

  function step(dx, dy) {
    const from = picked < 0 ? [canvas.clientWidth / 2, canvas.clientHeight / 2] : onScreen(matrix(), picked);
    const next = lowestCost(...from, (x, y, i) => {
      if (picked < 0) return x * x + y * y;
      const along = dx * x + dy * y, across = Math.abs(dy * x + dx * y);
      return i !== picked && along > 0.5 && across <= along ? along + 2 * across : Infinity;
    });
    if (next >= 0) pick(next);
  }

  let dragFrom = null, dragged = 0;
  canvas.addEventListener("pointerdown", event => {
    dragFrom = [event.clientX, event.clientY];
    dragged = 0;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", event => {
    if (!dragFrom) { pick(nearest(event)); return; }
    const dx = event.clientX - dragFrom[0], dy = event.clientY - dragFrom[1];
    dragged += Math.abs(dx) + Math.abs(dy);
    if (dragged < 4) return;
    dragFrom = [event.clientX, event.clientY];
    drag(dx, dy);
  });
  canvas.addEventListener("pointerup", event => {
    dragFrom = null;
    if (dragged < 4) pick(nearest(event));
  });
  canvas.addEventListener("pointercancel", () => { dragFrom = null; });
  canvas.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") pick(-1); });
  canvas.addEventListener("wheel", event => {
    if (document.activeElement !== canvas && !event.ctrlKey) return; // The page scrolls instead.
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    const x = 2 * (event.clientX - box.left) / box.width - 1, y = 1 - 2 * (event.clientY - box.top) / box.height;
    zoomBy(Math.exp(-event.deltaY / 500), x, y);
  }, {passive: false});
  const arrows = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  const others = {"+": () => zoomBy(1.4), "-": () => zoomBy(1 / 1.4), "0": reset, Escape: () => pick(-1)};
  canvas.addEventListener("keydown", event => {
    const arrow = arrows[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !(arrow || others[event.key])) return;
    event.preventDefault();
    if (!arrow) others[event.key]();
    else if (event.shiftKey) drag(24 * arrow[0], 24 * arrow[1]);
    else step(...arrow);
  });
  new ResizeObserver(() => { pick(-1); draw(); }).observe(canvas);

  return {
    plain: !paint.webgl,
    zoomBy,
    reset,
    /** Set the coordinates: arrays of `count` numbers within -1..1; z is null for two dimensions. */
    setPoints(x, y, z) {
      is3d = z !== null;
      extent = [0.01, 0.01];
      for (let i = 0; i < count; i++) {
        positions[3 * i] = x[i];
        positions[3 * i + 1] = y[i];
        positions[3 * i + 2] = is3d ? z[i] : 0;
        const far = is3d ? Math.hypot(x[i], y[i], z[i]) : 0; // The extent after any rotation.
        extent[0] = Math.max(extent[0], far, Math.abs(x[i]));
        extent[1] = Math.max(extent[1], far, Math.abs(y[i]));
      }
      reset();
    },
    /** Set the colours: `colourOf(i)` returns [red, green, blue], or null to hide a point. */
    colour(colourOf) {
      for (let i = 0; i < count; i++) {
        const colour = colourOf(i);
        colours.set(colour ? [...colour, 255] : [0, 0, 0, 0], 4 * i);
      }
      pick(-1);
      draw();
    },
  };
}

function webglPainter(canvas, positions, colours) {
  // The drawing buffer is preserved so that the page can be printed.
  const gl = canvas.getContext("webgl", {preserveDrawingBuffer: true, premultipliedAlpha: false});
  if (!gl) return null;
  const program = gl.createProgram();
  const shaders = [[gl.VERTEX_SHADER, `
    attribute vec3 position; attribute vec4 colour; uniform mat4 view; uniform float size; uniform float is3d;
    varying vec4 shade;
    void main() {
      gl_Position = colour.a > 0.5 ? view * vec4(position, 1.0) : vec4(0.0, 0.0, 9.0, 1.0);
      gl_PointSize = size * (1.0 - 0.45 * is3d * gl_Position.z);
      shade = colour;
    }`], [gl.FRAGMENT_SHADER, `
    precision mediump float; varying vec4 shade;
    void main() {
      float r = length(gl_PointCoord - 0.5);
      if (r > 0.5) discard;
      gl_FragColor = vec4(shade.rgb * (1.0 - 0.18 * smoothstep(0.3, 0.5, r)), 0.92);
    }`]];
  for (const [kind, source] of shaders) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  const upload = (name, values, width, type, normalised) => {
    const at = gl.getAttribLocation(program, name), buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, width, type, normalised, 0, 0);
    return () => { gl.bindBuffer(gl.ARRAY_BUFFER, buffer); gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW); };
  };
  const uploads = [
    upload("position", positions, 3, gl.FLOAT, false), upload("colour", colours, 4, gl.UNSIGNED_BYTE, true),
  ];
  const uniform = name => gl.getUniformLocation(program, name);
  const view = uniform("view"), pixels = uniform("size"), perspective = uniform("is3d");
  gl.enable(gl.DEPTH_TEST);
  gl.depthFunc(gl.LEQUAL);
  const paint = (matrix, size, is3d) => {
    uploads.forEach(each => each());
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix4fv(view, false, matrix);
    gl.uniform1f(pixels, size);
    gl.uniform1f(perspective, is3d ? 1 : 0);
    gl.drawArrays(gl.POINTS, 0, positions.length / 3);
  };
  paint.webgl = true;
  return paint;
}

function plainPainter(canvas, positions, colours) {
  const pen = canvas.getContext("2d");
  return (m, size) => {
    pen.clearRect(0, 0, canvas.width, canvas.height);
    for (let i = 0; 3 * i < positions.length; i++) {
      if (!colours[4 * i + 3]) continue;
      const x = positions[3 * i], y = positions[3 * i + 1], z = positions[3 * i + 2];
      pen.fillStyle = `rgb(${colours[4 * i]},${colours[4 * i + 1]},${colours[4 * i + 2]})`;
      pen.fillRect(
        (0.5 + 0.5 * (m[0] * x + m[4] * y + m[8] * z + m[12])) * canvas.width - size / 2,
        (0.5 - 0.5 * (m[1] * x + m[5] * y + m[9] * z + m[13])) * canvas.height - size / 2, size, size);
    }
  };
}
