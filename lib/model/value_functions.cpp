#include "lib/model/value_functions.h"

namespace moelora {
namespace {

// transformers' JambaConfig: mamba_dt_rank "auto" is ceil(hidden_size / 16).
int64_t mamba_dt_rank(const Values& values) { return (values.at("hidden") + 15) / 16; }

struct Function {
  const char* name;
  int64_t (*call)(const Values&);
};
constexpr Function kFunctions[] = {{"mamba_dt_rank", mamba_dt_rank}};

}  // namespace

bool is_value_function(const std::string& name) {
  for (const Function& f : kFunctions) {
    if (name == f.name) return true;
  }
  return false;
}

int64_t value_function(const std::string& name, const Values& values) {
  for (const Function& f : kFunctions) {
    if (name == f.name) return f.call(values);
  }
  return 0;
}

}  // namespace moelora
