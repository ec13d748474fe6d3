#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "lib/check/rule_context.h"

namespace moelora {

// Names with the same fault, gathered so that each kind of fault is one finding, however many
// tensors have it.
class NameGroups {
 public:
  // `what` is the message, without the name.
  void add(const std::string& what, const std::string& name);

  bool empty() const { return groups_.empty(); }

  // One finding a message, in the order in which they came up; beyond some twenty, one for all the
  // rest. `refine` sets the severity.
  void report(RuleContext& context,
              const std::function<void(Finding&, const RuleContext&)>& refine = {});
  void report(RuleContext& context, Severity severity);

 private:
  struct Group {
    std::string what;
    std::vector<std::string> names;
  };
  std::vector<Group> groups_;
  std::map<std::string, size_t> by_what_;
};

// Reports the tensors of the adapter by what `fault_of` says of each, as NameGroups does; "" for a
// sound one.
void report_tensors(RuleContext& context,
                    const std::function<std::string(const NamedTensor&)>& fault_of,
                    const std::function<void(Finding&, const RuleContext&)>& refine = {});

// "1 tensor", "12 tensors".
std::string pluralized(size_t count, std::string_view noun);
inline std::string pluralized(int64_t count, std::string_view noun) {
  return pluralized(static_cast<size_t>(count), noun);
}

}  // namespace moelora
