// An adapter as adapter_text.h writes it down, in another trainer's dialect; "base 2" reads it with
// that one of kBases, "set 1" and "set 2" as ART's shards and rank files. Whatever its names and
// shapes say, it is translated into names that are nobody else's, or refused.

#include <sstream>

#include "lib/adapter/adapter_file.h"
#include "lib/adapter/dialect.h"
#include "tests/fuzz/adapter_text.h"
#include "tests/fuzz/fuzz.h"

using namespace moelora;

void fuzz(std::string_view text) {
  const AdapterText parts = split_adapter(text);
  AdapterFiles files;
  files.folder = "f";
  std::optional<BaseModel> base;
  std::istringstream lines{std::string(parts.lines)};
  for (std::string line, first; std::getline(lines, line);) {
    std::istringstream words(line);
    words >> first;
    size_t number = 0;
    if (first == "base" && words >> number)
      base = base_model(number);
    else if (first == "set" && words >> number)
      files.set = static_cast<ShardSet>(number % 3);
    else
      add_tensor(first, words, files.tensors);
  }
  read_config(parts.config == "none" ? Json() : parse_json(parts.config, "f"), files);
  const Dialect* dialect = files.dialect;
  if (dialect == nullptr) return;
  translate(files, base ? &base->spec : nullptr);
  for (const auto& entry : files.tensors)
    require(dialect->owns == nullptr || !dialect->owns(entry.first));
  interpret_adapter(std::move(files), std::move(base), "", {});
}
