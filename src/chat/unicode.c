#include "chat/unicode.h"

/* Other_Alphabetic symbols: circled and squared letters, category So. */
static bool is_enclosed_letter(uint32_t cp) {
    return (cp >= 0x24B6 && cp <= 0x24E9) || (cp >= 0x1F130 && cp <= 0x1F149) || (cp >= 0x1F150 && cp <= 0x1F169) ||
           (cp >= 0x1F170 && cp <= 0x1F189);
}

bool oc_chat_unicode_is_word(uint32_t cp) {
    switch (oc_chat_unicode_prop(cp) & OC_PROP_CATEGORY) {
    case OC_CAT_LL: case OC_CAT_LM: case OC_CAT_LO: case OC_CAT_LT: case OC_CAT_LU:
    case OC_CAT_MC: case OC_CAT_ME: case OC_CAT_MN:
    case OC_CAT_ND: case OC_CAT_NL: case OC_CAT_PC:
        return true;
    default:
        return cp == 0x200C || cp == 0x200D || is_enclosed_letter(cp);
    }
}
