#include "lib/io/shard_index.h"
#include "tests/fuzz/fuzz.h"

// Whatever an index says, it leads nowhere but to files beside it.
void fuzz(std::string_view input) {
  const auto index = moelora::parse_shard_index(input, "f");
  require(!index.weight_map.empty());
  for (const std::string& file : index.files()) {
    require(file.find_first_of(std::string_view("/\\:\0", 4)) == std::string::npos);
    require(file.ends_with(".safetensors"));
  }
  require(moelora::missing_numbers(index.files()).size() <= 5);
}
