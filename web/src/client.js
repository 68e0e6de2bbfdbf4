/** Calls to the worker that holds the model. */

/** Runs methods of the worker, one after the other. */
export class Client {
  /**
   * @param {(event: { kind: string, fraction: number }) => void} onProgress Called while something takes long.
   * @param {(error: Error) => void} onCrash Called if the worker itself fails.
   */
  constructor(onProgress, onCrash) {
    this.waiting = new Map();
    this.nextId = 0;
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module", name: "model" });
    this.worker.onmessage = ({ data }) => {
      if (data.progress) {
        onProgress(data.progress);
        return;
      }
      const { resolve, reject } = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if (data.error) reject(new Error(data.error));
      else resolve(data.result);
    };
    this.worker.onerror = (event) => onCrash(new Error(event.message || "The worker could not be started."));
  }

  /**
   * Run a method of the worker.
   *
   * @param {string} method Name of the method.
   * @param {object} [args] Its argument.
   * @returns {Promise<any>} What it returns.
   */
  call(method, args = {}) {
    const id = this.nextId++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, method, args });
    });
  }
}
