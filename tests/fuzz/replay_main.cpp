// Runs a fuzz target over the files named, for builds without libFuzzer: the seeds, and every input
// that once was a crash, stay tested.

#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/fuzz/fuzz.h"

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    if (!file) return std::fprintf(stderr, "%s: cannot be read\n", argv[i]), 2;
    fuzz_one(std::string(std::istreambuf_iterator<char>(file), {}));
  }
  std::printf("%d inputs\n", argc - 1);
  return argc > 1 ? 0 : 2;
}
