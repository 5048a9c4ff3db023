package kernel

import "testing"

// BenchmarkAdd has the shape of ViT-Tiny's MLP at batch 16.
func BenchmarkAdd(b *testing.B) {
	const rows, channels = 16 * 197, 768
	y, g := values(1, rows*channels), values(2, rows*channels)
	s := NewSums(channels)
	b.SetBytes(2 * 4 * rows * channels)
	for b.Loop() {
		if err := s.Add(y, g, rows, 1); err != nil {
			b.Fatal(err)
		}
	}
}
