#include <hilora/hilora.h>

const char *hl_version(void) {
    return HILORA_VERSION;
}
