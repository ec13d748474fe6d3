#define PCRE2_CODE_UNIT_WIDTH 8
#include "lib/base/regex/python_regex.h"

#include <fmt/core.h>
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <mutex>
#include <optional>

#include "lib/base/error.h"
#include "lib/base/regex/python_syntax.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

constexpr uint32_t kMostHeapKib = 16384;
// Steps that one match may take. PCRE2 does not say how many it took, only that they were too many:
// they are tried one after the other, and what was allowed counts as taken.
constexpr uint32_t kLimits[] = {64, 256, 1024, 4096, 16384, 50000};
constexpr int64_t kCost = 2;  // of one of its steps

template <auto Free>
struct Freed {
  template <class T>
  void operator()(T* thing) const {
    Free(thing);
  }
};

std::string reason_of(int fault) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(fault, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

[[noreturn]] void refuse_steps(const std::string& expression, const RegexSteps& steps) {
  throw Error(expression,
              fmt::format("takes more than {} steps on all modules together, which are not taken",
                          steps.most),
              "write a simpler expression");
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<signed char>(c) >= 0; });
}

}  // namespace

// Of fullmatch() alone.
struct PythonRegex::Automaton {
  std::mutex lock;
  RegexAutomaton states;
  std::optional<bool> is_regular;  // the expression is in `states`; nullopt: not tried yet
  RegexSteps steps;
};

bool is_plain_path(std::string_view path) {
  return std::all_of(path.begin(), path.end(),
                     [](char c) { return static_cast<signed char>(c) >= 0 && c != '\n'; });
}

PythonRegex::PythonRegex(std::string_view text, RegexSteps steps) : text_(text) {
  const PcreText ours = to_pcre(text);
  ascii_only_ = ours.ascii_only;
  const std::unique_ptr<pcre2_compile_context, Freed<pcre2_compile_context_free>> context(
      pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 10 * kDeepestRegexGroup);
  int fault = 0;
  PCRE2_SIZE at = 0;
  pcre2_code* compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(ours.text.data()),
                                       ours.text.size(), PCRE2_UTF, &fault, &at, context.get());
  if (compiled == nullptr)
    throw Error(text_, "is not evaluated here: " + reason_of(fault), "write a simpler expression");
  code_ = {compiled,
           [](const pcre2_code* code) { pcre2_code_free(const_cast<pcre2_code*>(code)); }};
  automaton_ = std::make_shared<Automaton>();
  automaton_->steps = steps;
}

bool PythonRegex::fullmatch(std::string_view path) const {
  const std::scoped_lock held(automaton_->lock);
  if (!automaton_->is_regular)
    automaton_->is_regular = automaton_->states.add(to_pcre(text_).text, 0);
  if (!*automaton_->is_regular || !is_plain_path(path))
    return run(path, PCRE2_ANCHORED | PCRE2_ENDANCHORED, automaton_->steps);
  bool out = false;
  const auto visit = [&](uint32_t, size_t at) { out = at == 0; };
  if (!automaton_->states.scan(path, automaton_->steps, visit))
    refuse_steps(text_, automaton_->steps);
  return out;
}

bool PythonRegex::match(std::string_view path) const {
  const std::scoped_lock held(automaton_->lock);
  return run(path, PCRE2_ANCHORED, automaton_->steps);
}

bool PythonRegex::match(std::string_view path, RegexSteps& steps) const {
  return run(path, PCRE2_ANCHORED, steps);
}

int64_t PythonRegex::bytes() const {
  size_t out = 0;
  pcre2_pattern_info(code_.get(), PCRE2_INFO_SIZE, &out);
  return static_cast<int64_t>(out);
}

bool PythonRegex::run(std::string_view path, uint32_t options, RegexSteps& steps) const {
  if (ascii_only_ && !is_ascii(path))
    throw Error(text_, fmt::format("is not evaluated on '{}', which is not ASCII", printable(path)),
                "write it without \\d, \\w, \\s, \\b and (?i), which are Unicode's there");
  const std::unique_ptr<pcre2_match_context, Freed<pcre2_match_context_free>> context(
      pcre2_match_context_create(nullptr));
  pcre2_set_heap_limit(context.get(), kMostHeapKib);
  const std::unique_ptr<pcre2_match_data, Freed<pcre2_match_data_free>> data(
      pcre2_match_data_create(1, nullptr));
  int found = PCRE2_ERROR_MATCHLIMIT;
  for (const uint32_t limit : kLimits) {
    if (found != PCRE2_ERROR_MATCHLIMIT && found != PCRE2_ERROR_DEPTHLIMIT) break;
    if (!steps.take(kCost * limit)) refuse_steps(text_, steps);
    pcre2_set_match_limit(context.get(), limit);
    pcre2_set_depth_limit(context.get(), limit);
    found = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(path.data()), path.size(), 0,
                        options, data.get(), context.get());
  }
  if (found >= 0) return true;
  if (found == PCRE2_ERROR_NOMATCH) return false;
  throw Error(text_,
              fmt::format("could not be evaluated on '{}': {}", printable(path), reason_of(found)),
              "write a simpler expression");
}

}  // namespace moelora
