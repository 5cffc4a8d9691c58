"""
Stage 1b, features of rows. Public: your own method imports these, and passes on its `ctx`.

| feature | gives |
|---|---|
| [`~loss.answer_loss`] | mean loss of the answers, conditional or unconditional, label tokens, top-1 hits |
| [`~loss.trained_loss`] | the same over the tokens that training counts |
| [`~token_values.answer_token_values`] | loss or rank of each token of the answers |
| [`~turn_losses.turn_losses`] | losses of each answer of a chat, with and without the turns before it |
| [`~noisy_losses.prompt_deltas`] | what the prompt changes in the loss of each answer token, under noisy copies |
| [`~loss_trajectories.loss_trajectories`] | losses of the answers at the epochs of a fine-tuning |
| [`~loss.prompt_features`] | mean hidden state and perplexity of the prompts, from one forward pass |
| [`~hidden_states.text_vectors`], [`~hidden_states.prompt_vectors`] | hidden states of rows or prompts, on disk |
| [`~row_vectors.RowVectors`] | vectors of rows by the model or a sentence encoder, on demand |
| [`~sentence_vectors.sentence_vectors`], [`~sentence_vectors.EncoderOption`] | vectors of any texts; the option |
| [`~gradients.gradient_features`] | projected gradients at the epochs of a warm-up |
| [`~tuning.tuned_on`] | the context with its model temporarily fine-tuned on some rows |
| [`~tuning.WarmupOptions`] | options of a warm-up, after whose epochs gradients are taken |
| [`~tuned_loss.TunedLoss`] | held-out loss of the model fine-tuned on some rows |
| [`~one_shot_tasks.task_counts`] | tasks that each row helps with as a one-shot example |
| [`~judgements.ask_about_rows`] | replies of the judge to a question about each row |
| [`~ratings.expected_ratings`], [`~ratings.digit_logits`] | expected digit of a scorer, logits of digits |
| [`~rewards.answer_rewards`] | rewards of the answers, or of others in their place |
| [`~generated_answers.generated_answers`] | model-generated responses to the prompts |
| [`~text_statistics.text_feature`], [`~text_statistics.answer_tokens`] | length, diversity, readability, tokens |
| [`~term_scores.TargetMatches`] | BM25 of each row for target-task examples, by group |
| [`~hashed_ngrams.hashed_ngrams`] | words and pairs of words in buckets, importance weights |
| [`~indicators.IndicatorSources`], [`~image_text.ImageTextSources`] | indicators that a fitted rule weights |
| [`~clip.embed`] | images and answers in one space |
| [`~tags.Vocabulary`] | tags, normalized |
| [`~target_rows.encode_target`] | token rows of the target-task examples |
| [`~target_vectors.target_vectors`] | vectors of rows and of the target-task examples |
| [`~influences.Influences`] | options and stages of methods by influence: LESS, BIDS |
| [`~served.ServesTarget`] | what methods share that take rows for a target by a rule |
| [`~served.note_served`] | what rows kept give to the tasks of a target, for the report |

All take records and a context and run on all ranks. Rows that they can't compute are NaN and noted in `ctx.account`.
"""
