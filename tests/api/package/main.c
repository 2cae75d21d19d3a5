/* Prints the version, and what opening a file that is not there says. */
#include <hilora/hilora.h>
#include <stdio.h>

int main(void) {
    hl_pool *pool;
    hl_diag diag;
    hl_diag_clear(&diag);
    hl_status status = hl_pool_open("no such file", NULL, &pool, &diag);
    printf("%s %s: %s\n", hl_version(), hl_status_name(status), diag.message);
    return status == HL_ERR_IO && pool == NULL ? 0 : 1;
}
