//go:build !linux

package load

import "context"

// Run returns [ErrNotSupported].
func Run(context.Context, Plan) (Result, error) { return Result{}, ErrNotSupported }
