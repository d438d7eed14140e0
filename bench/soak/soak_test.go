package main

import (
	"testing"

	"github.com/f72e338e/supervisord/internal/testkit"
)

func TestMain(m *testing.M) {
	amongOthers = true // other packages' tests
	testkit.Main(m)
}

func TestShort(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) { sc.run(t, scale{}) })
	}
}
