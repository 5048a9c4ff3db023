package abi

import (
	"agflow/bridge/carrow"
	"agflow/core/cancel"
	"agflow/core/fault"
)

// CancelFlag lends the calling thread a flag, the address of an int32 that is 0, which the caller
// sets from another thread to end the call that runs on this one with an error of the code
// cancelled; 0 takes it back. The memory of the flag outlives all calls until then.
func CancelFlag(flag int64) (lent int64, err error) {
	defer fault.Recover(&err)
	address, err := carrow.Flag(flag)
	if err != nil {
		return 0, err
	}
	cancel.Lend(address)
	return flag, nil
}
