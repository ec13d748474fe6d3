// Reads an adapter in any layout, looks at one expert, writes it under per-expert Linear names.
//   minimal_api ADAPTER BASE OUT

#include <cstdio>
#include <string>

#include "lib/adapter/convert.h"
#include "lib/base/error.h"
#include "lib/compare/verify_conversion.h"

namespace {

void print_experts(const moelora::Adapter& adapter) {
  using moelora::to_string;
  for (const auto& [key, pair] : adapter.experts) {
    const std::string name(projection_name(key.projection));
    const std::string a = to_string(pair.a.at(0).shape()), b = to_string(pair.b.at(0).shape());
    std::printf("layer %d %s: expert 0 has A %s and B %s, scale %g%s\n", key.layer, name.c_str(),
                a.c_str(), b.c_str(), pair.scaling_of(0).value(),
                pair.a.shared ? ", A shared by all experts" : "");
  }
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 4) return std::fputs("usage: minimal_api ADAPTER BASE OUT\n", stderr), 2;
  moelora::PlanOptions options;
  options.to = "peft-linear";
  options.load.base = argv[2];
  const moelora::Conversion conversion = moelora::plan_conversion(argv[1], options);
  print_experts(conversion.adapter);
  moelora::WriteFolderOptions folder;
  folder.verify = moelora::packed_verifier(argv[1]);
  const auto written = moelora::write_conversion(conversion, argv[3], folder);
  std::printf("%zu tensors written, %lld factors identical\n", written.weights.tensors.size(),
              static_cast<long long>(written.verified));
  return 0;
} catch (const moelora::Error& error) {
  std::fprintf(stderr, "minimal_api: %s\n", error.what());
  return 2;
}
