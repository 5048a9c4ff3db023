package kernel

// comparePortable is the loop of [Compare]. It collects bits in bytes, which takes fewer
// instructions than in words. It is not inlined, because the words would then be kept in memory.
//
//go:noinline
func comparePortable(block *[64]float64, low, high float64) (above, below uint64) {
	for i := 60; i >= 0; i -= 4 {
		four := (*[4]float64)(block[i:])
		over := bit(four[3] > high)<<3 | bit(four[2] > high)<<2 | bit(four[1] > high)<<1 | bit(
			four[0] > high)
		under := bit(four[3] < low)<<3 | bit(four[2] < low)<<2 | bit(four[1] < low)<<1 | bit(
			four[0] < low)
		above, below = above<<4|uint64(over), below<<4|uint64(under)
	}
	return above, below
}

// bit compiles to an instruction, not to a branch that random scores would mispredict.
func bit(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}
