package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

const (
	// plainMXCSR rounds to the nearest, keeps subnormal numbers, masks all exceptions and has none
	// of their flags set.
	plainMXCSR = 0x1f80
	// rangeFlags are OE and UE: a result since they were cleared was too great, or too small and
	// inexact.
	rangeFlags = 0x18
)

// setMXCSR loads plainMXCSR, because the caller's may flush subnormal numbers to zero, and returns
// where the caller's is saved.
func setMXCSR() (callers Mem) {
	callers, plain := AllocLocal(4), AllocLocal(4)
	STMXCSR(callers)
	MOVL(U32(plainMXCSR), plain)
	LDMXCSR(plain)
	return callers
}

// storeInRange stores whether all results since setMXCSR were in range.
func storeInRange(result string) {
	now, flags, inRange := AllocLocal(8), GP32(), GP8()
	STMXCSR(now)
	MOVL(now, flags)
	TESTL(U32(rangeFlags), flags)
	SETEQ(inRange)
	Store(inRange, Return(result))
}
