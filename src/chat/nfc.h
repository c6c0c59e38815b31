/* chat/nfc.h - Unicode normalisation form C, with each byte's origin carried along.
 *
 * Called by the tokenizer only, on text already made valid UTF-8. Data: chat/unicode.h. Any thread. */
#ifndef OC_CHAT_NFC_H
#define OC_CHAT_NFC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

/* True if NFC cannot change s: no character in it is a mark or composes with what stands before it. */
bool oc_chat_nfc_is_inert(struct oc_str s);

/* Appends NFC(s) to out. Where origin is not NULL (one byte per byte of s), appends one byte per output byte to
 * out_origin: 1 only if every byte of the normalised segment was 1. False: a buffer's maximum or no memory. */
bool oc_chat_nfc(struct oc_str s, const uint8_t *origin, struct oc_buf *out, struct oc_buf *out_origin);

#endif
