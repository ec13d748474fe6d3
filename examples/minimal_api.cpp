// Writes an adapter of any layout under per-expert Linear names, verified, and looks at one expert.
//   minimal_api ADAPTER BASE OUT

#include <cstdio>

#include "moelora/moelora.h"

int main(int argc, char** argv) try {
  if (argc != 4) return std::fputs("usage: minimal_api ADAPTER BASE OUT\n", stderr), 2;
  moelora::ConvertOptions options;
  options.to = "peft-linear";
  options.base = argv[2];
  options.verify = true;
  const moelora::ConvertResult result = moelora::convert(argv[1], argv[3], options);
  std::printf("%zu tensors written, %lld factors identical\n", result.tensors.size(),
              static_cast<long long>(result.verified));

  const moelora::Adapter adapter = moelora::load(argv[3], options);
  for (const auto& [key, pair] : adapter.experts) {
    const std::string name(projection_name(key.projection));
    std::printf("layer %d %s: expert 0 has A %s, first element %g, scale %g\n", key.layer,
                name.c_str(), moelora::to_string(pair.a.at(0).shape()).c_str(),
                moelora::values(pair.a.at(0)).front(), pair.scaling_of(0).value());
  }
  return 0;
} catch (const moelora::Error& error) {
  std::fprintf(stderr, "minimal_api: %s\n", error.what());
  return 2;
}
