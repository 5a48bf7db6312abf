package fetch

import "testing"

func TestRedactText(t *testing.T) {
	for in, want := range map[string]string{
		"":                                                                    "",
		"https://user:pass@a.example/b@v1: 500":                               "https://xxxxx@a.example/b@v1: 500",
		"get https://tok-en@a.example/x":                                      "get https://xxxxx@a.example/x",
		`"user:p@ss@a.example"`:                                               `"xxxxx@a.example"`,
		"proxy user:pass@a.example failed":                                    "proxy xxxxx@a.example failed",
		"to https://a.example/x?sig=abc&b=c: refused":                         "to https://a.example/x?xxxxx: refused",
		`to "https://a.example/x?sig=abc"`:                                    `to "https://a.example/x?xxxxx"`,
		"https://a.example/#access_token=abc":                                 "https://a.example/?xxxxx",
		"X-Amz-Signature=0a0b&X-Amz-Date=1":                                   "X-Amz-Signature=xxxxx&X-Amz-Date=1",
		"example.com/a@v1.0.0: zip: https://a.example/a/@v/b.zip":             "example.com/a@v1.0.0: zip: https://a.example/a/@v/b.zip",
		"dial tcp 127.0.0.1:1: connect: connection refused":                   "dial tcp 127.0.0.1:1: connect: connection refused",
		"example.com/a@v1.0.0: zip: hash mismatch: got h1:ab+/=, want h1:cd=": "example.com/a@v1.0.0: zip: hash mismatch: got h1:ab+/=, want h1:cd=",
	} {
		if got := redactText(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
