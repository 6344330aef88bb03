/* Clears one of the tiles of AMX; exits with 0 where AMX's tiles can be used. The kernel gives them to a
   process that asks (Linux's arch_prctl, ARCH_REQ_XCOMP_PERM, feature 18: XTILEDATA). */
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
    struct {
        unsigned char palette, start_row, reserved[14];
        unsigned short columns[16];
        unsigned char rows[16];
    } tiles = {.palette = 1, .columns = {64}, .rows = {16}};
    if (syscall(SYS_arch_prctl, 0x1023, 18) != 0)
        return 1;
    _tile_loadconfig(&tiles);
    _tile_zero(0);
    _tile_release();
    return 0;
}
