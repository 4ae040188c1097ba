#pragma once

#include <cstdlib>

// All that compilers spell differently or do not have, under one name: no other header of runnel uses an extension of
// C++ (digest/detail/x86_sha.hpp does, which is there for RUNNEL_GNU and x86-64 only). The attributes change how fast
// and how large the code is, and nothing else.
//
// RUNNEL_GNU says whether the extensions of g++ are used, which clang has, too. -DRUNNEL_GNU=0 does without them, as
// other compilers must; it must be the same in all files of a program.
#ifndef RUNNEL_GNU
#ifdef __GNUC__
#define RUNNEL_GNU 1
#else
#define RUNNEL_GNU 0
#endif
#endif

#if RUNNEL_GNU

/// Rarely called: away from what is called often, and optimised for size.
#define RUNNEL_COLD [[gnu::cold]]
/// Never made part of its caller.
#define RUNNEL_NOINLINE [[gnu::noinline]]
/// Always made part of its caller.
#define RUNNEL_ALWAYS_INLINE [[gnu::always_inline]]
// Behind the parameters of a lambda g++ takes the old form only.
#define RUNNEL_LAMBDA_COLD __attribute__((cold))
#define RUNNEL_LAMBDA_ALWAYS_INLINE __attribute__((always_inline))

/// What stands behind an arithmetic type to make it a vector of `size` bytes, whose operators work on each element.
/// Only with RUNNEL_GNU.
#define RUNNEL_VECTOR(size) __attribute__((vector_size(size)))

/// The compiler must take it that what `pointer` points to is read here. Only with RUNNEL_GNU.
#define RUNNEL_MEMORY_IS_READ(pointer) asm volatile("" : : "r"(pointer) : "memory")
/// The compiler must take it that `value` is read and changed here. Only with RUNNEL_GNU.
#define RUNNEL_VALUE_CHANGES(value) asm volatile("" : "+r"(value))

#else

#define RUNNEL_COLD
#ifdef _MSC_VER
#define RUNNEL_NOINLINE [[msvc::noinline]]
#define RUNNEL_ALWAYS_INLINE [[msvc::forceinline]]
#else
#define RUNNEL_NOINLINE
#define RUNNEL_ALWAYS_INLINE
#endif
#define RUNNEL_LAMBDA_COLD
#define RUNNEL_LAMBDA_ALWAYS_INLINE

#endif

/// A function that uses the instructions `what` of x86-64, whether the program is compiled for them or not, may be
/// called where RUNNEL_PROCESSOR_HAS(what). Only with RUNNEL_X86_64, and then with RUNNEL_GNU.
#if RUNNEL_GNU && defined(__x86_64__)
#define RUNNEL_X86_64 1
#define RUNNEL_TARGET(what) [[gnu::target(what)]]
#define RUNNEL_PROCESSOR_HAS(what) (__builtin_cpu_init(), __builtin_cpu_supports(what) != 0)
#else
#define RUNNEL_X86_64 0
#endif

#if RUNNEL_GNU && defined(__i386__) && !defined(__SSE__)
// Without vector registers, vectors are returned in another way than with them, of which g++ warns wherever a function
// that does is compiled. All of runnel's are inline.
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

/// A member that takes no room if its type is empty. (With Microsoft's conventions the standard's attribute does
/// nothing.)
#ifdef _MSC_VER
#define RUNNEL_NO_UNIQUE_ADDRESS [[msvc::no_unique_address]]
#else
#define RUNNEL_NO_UNIQUE_ADDRESS [[no_unique_address]]
#endif

// Headers that do no I/O can be compiled without exceptions (-fno-exceptions). What would throw one then ends the
// program by `std::abort()`, as running out of memory does in the standard library; Asio's coroutines want exceptions.
#if defined(__cpp_exceptions) || defined(_CPPUNWIND)
#define RUNNEL_THROW(...) throw __VA_ARGS__
#define RUNNEL_TRY try
#define RUNNEL_CATCH_ALL catch (...)
#define RUNNEL_RETHROW throw
#else
#define RUNNEL_THROW(...) (static_cast<void>(sizeof(__VA_ARGS__)), std::abort())
#define RUNNEL_TRY if constexpr (true)
#define RUNNEL_CATCH_ALL else
#define RUNNEL_RETHROW std::abort()
#endif
