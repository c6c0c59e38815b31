/* chat/pretok_scan.h - hand-written scanners of the pre-tokenizer patterns everyone uses.
 *
 * Called by chat/pretok.c. Each takes valid UTF-8 in [p, end), p < end, and gives the length of the pattern's
 * match at p, which for these patterns is never 0: together the matches cover the text. Any thread. */
#ifndef OC_CHAT_PRETOK_SCAN_H
#define OC_CHAT_PRETOK_SCAN_H

#include <stddef.h>

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
size_t oc_chat_scan_gpt2(const char *p, const char *end);

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,max_digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|
 * \s*[\r\n]+|\s+(?!\S)|\s+ : max_digits is 1 for Qwen2, 3 for Llama 3. */
size_t oc_chat_scan_caseless(const char *p, const char *end, int max_digits);

/* Length of the numeric characters at p, at most max_digits of them (0: any number); 0 when there is none. */
size_t oc_chat_scan_digits(const char *p, const char *end, int max_digits);

#endif
