//go:build !asan

package tables

// underASan says that the address sanitizer is on, which allocates on its own account.
const underASan = false
