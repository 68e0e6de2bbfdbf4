/** Texts as tokens of the text tower. */

import { Tokenizer } from "@huggingface/tokenizers";

/** Tokenizer of the model, with its limit of length. */
export class TextTokenizer {
  /**
   * @param {object} files Parsed `tokenizer.json`.
   * @param {object} config Parsed `tokenizer_config.json`.
   */
  constructor(files, config) {
    this.tokenizer = new Tokenizer(files, config);
    this.maxLength = config.model_max_length;
  }

  /**
   * Return the tokens of a text as an array of numbers, between those of its start and its end.
   *
   * @param {string} text Text, such as "a cat".
   */
  encode(text) {
    const { ids } = this.tokenizer.encode(text);
    return ids.length <= this.maxLength ? ids : [...ids.slice(0, this.maxLength - 1), ids.at(-1)];
  }
}
