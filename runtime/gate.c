/* The selection rule of the token level (docs/ROUTING.md, "Token level"). */
#include <hilora/session.h>

#include <string.h>

/* Magnitudes of floats have the order of their bits, NaN above infinity: any input has one answer. */
static inline uint32_t magnitude_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits & UINT32_C(0x7FFFFFFF);
}

/* What u[j] is ranked by; b_norm NULL: |u_j|. */
static inline uint32_t key(const float *u, const float *b_norm, uint32_t j) {
    return magnitude_bits(b_norm ? u[j] * b_norm[j] : u[j]);
}

static uint32_t count_above(const float *u, const float *b_norm, uint32_t rank, uint32_t bound) {
    uint32_t n = 0;
    if (b_norm) {
        for (uint32_t j = 0; j < rank; j++) {
            n += (int32_t)key(u, b_norm, j) > (int32_t)bound; /* signed: vector units compare these */
        }
    } else {
        for (uint32_t j = 0; j < rank; j++) {
            n += (int32_t)key(u, NULL, j) > (int32_t)bound;
        }
    }
    return n;
}

/* The largest key that at least `count` keys reach, found bit by bit; or a lower one that exactly `count` reach. */
static uint32_t threshold(const float *u, const float *b_norm, uint32_t rank, uint32_t count) {
    uint32_t least = 0;
    for (uint32_t bit = UINT32_C(1) << 30; bit; bit >>= 1) {
        uint32_t reached = count_above(u, b_norm, rank, (least | bit) - 1);
        if (reached >= count) {
            least |= bit;
        }
        if (reached == count) {
            break;
        }
    }
    return least;
}

void hl_gate_select(hl_gate gate, const float *u, const float *b_norm, uint32_t rank, uint32_t count,
                    uint32_t *active) {
    const float *norm = gate == HL_GATE_CONTRIBUTION ? b_norm : NULL;
    if (gate == HL_GATE_STATIC || count >= rank) {
        for (uint32_t j = 0; j < count && j < rank; j++) {
            active[j] = j;
        }
        return;
    }
    if (count == 0) {
        return;
    }
    const uint32_t least = threshold(u, norm, rank, count);
    uint32_t ties = count - count_above(u, norm, rank, least), n = 0;
    for (uint32_t j = 0; j < rank && n < count; j++) {
        uint32_t own = key(u, norm, j);
        if (own > least || (own == least && ties)) {
            ties -= own == least;
            active[n++] = j;
        }
    }
}
