// Elementary functions of our own, in double precision: the same bits from every compiler and C
// library.
//
// libm's results change with its version and with the CPU it finds; schedules, tables, draws and
// losses must not. Each is a range reduction and a polynomial in fused multiply-adds; errors are
// below 2 units in the last place where not said otherwise (tests/parity compares them with long
// double).
#pragma once

namespace tutti::kernels {

double exp(double x);  // overflow gives infinity; below -745 gives 0
double log(double x);  // 0 gives -infinity, below 0 NaN
double sin(double x);  // |x| < 2^27; beyond NaN
double cos(double x);
double tanh(double x);               // absolute error below 2^-51
double power(double x, double y);    // x > 0; relative error below 2^-48
double power(double x, unsigned n);  // by squaring; beta^t

}  // namespace tutti::kernels
